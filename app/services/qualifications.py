"""A labeller's way into the work: practice with explained answers, then a test that says nothing until it is over.

The score of a test is the share of the references' pairs that the person orders as the reference does, ties being an order of
their own; the paper's labellers had to reach 75 % (InstructGPT, appendix B.1). Each attempt has tasks of its own as long as
there are enough that the person has not had.
"""

import random
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from sqlalchemy.orm import Session

from app.errors import Conflict, NotFound
from app.models import (
    Judgement,
    Lease,
    Purpose,
    Qualification,
    QualificationState,
    Role,
    Task,
    TaskKind,
    TaskReference,
    User,
)
from app.permissions import GRANTS, Access, Permission
from app.queries import judgements as judgement_queries
from app.queries import leases, people
from app.queries import qualifications as queries
from app.queries import references as reference_queries
from app.queries import tasks as task_queries
from app.queries.references import PlaceRow
from app.schemas.projects import SchoolSettings
from app.services import audit, references, tasks


@dataclass(frozen=True)
class Compared:
    """A person's answer beside the reference: each output with both tiers, and every pair."""

    work: tasks.Work
    reference: TaskReference
    places: Mapping[uuid.UUID, PlaceRow]
    """What the reference says, by sample."""
    given: Mapping[uuid.UUID, int | None]
    """The person's tiers, in the order they were shown."""
    pairs: Sequence[references.Pair]

    @property
    def unlike(self) -> list[references.Pair]:
        """The pairs that differ."""
        return [pair for pair in self.pairs if not pair.is_alike]


@dataclass(frozen=True)
class Standing:
    """How far a person is on the way to the work."""

    school: SchoolSettings
    practice: Sequence[queries.PracticeRow]
    attempts: Sequence[Qualification]
    """Those that count, the newest first."""
    answered: int
    """Tasks answered of the attempt that is open, of `tasks_in_test`."""
    tasks_in_test: int
    tasks_there: int
    """Tasks that a test can be made of."""

    @property
    def practised(self) -> int:
        """Practice tasks done."""
        return sum(row.is_done for row in self.practice)

    @property
    def open_attempt(self) -> Qualification | None:
        """The test that is going on."""
        return next((attempt for attempt in self.attempts if attempt.state == QualificationState.OPEN), None)

    @property
    def has_passed(self) -> bool:
        """Whether the work is open to them."""
        return any(attempt.state == QualificationState.PASSED for attempt in self.attempts)

    @property
    def attempts_left(self) -> int:
        """Attempts that may still be begun."""
        return max(0, self.school.attempts - len(self.attempts))

    @property
    def why_no_test(self) -> str:
        """What keeps the person from beginning the test; empty where nothing does."""
        if self.has_passed:
            return "You have passed already."
        if self.practised < len(self.practice):
            return "Go through the practice tasks first."
        if not self.attempts_left:
            return "You have used all attempts. Ask an admin of the project for another."
        if self.tasks_there < self.school.test_tasks:
            return "The test is not ready: an admin still has to make tasks for it."
        return ""


@dataclass(frozen=True)
class PersonRow:
    """A labeller as the admin's list shows them."""

    user: User
    practised: int
    attempts: Sequence[Qualification]
    """Those that count, the newest first."""


def list_people(session: Session, access: Access) -> list[PersonRow]:
    """Everybody who may label, by name, with how far they are."""
    access.demand(Permission.MANAGE_SCHOOL)
    attempts = queries.list_attempts_of_all(session, access.project.id)
    practised = queries.count_practised(session, access.project.id)
    return [
        PersonRow(user, practised.get(user.id, 0), attempts.get(user.id, ()))
        for membership, user in people.list_members(session, access.project.id)
        if any(Permission.LABEL in GRANTS[Role(role)] for role in membership.roles)
    ]


def find_standing(session: Session, access: Access) -> Standing:
    """How far this person is."""
    project, user = access.project, access.user
    granted = tasks.granted(session, tasks.find_membership(session, access))
    attempts = [
        attempt
        for attempt in queries.list_attempts(session, project.id, user.id)
        if attempt.state != QualificationState.VOID
    ]
    standing = Standing(
        school=SchoolSettings.model_validate(project.school),
        practice=queries.list_practice(session, project.id, user.id, granted),
        attempts=attempts,
        answered=0,
        tasks_in_test=0,
        tasks_there=queries.count_test_tasks(session, project.id, user.id, granted),
    )
    if standing.open_attempt is None:
        return standing
    rows = queries.list_tasks(session, standing.open_attempt.id)
    answered = sum(row.judgement_id is not None for row in rows)
    return replace(standing, answered=answered, tasks_in_test=len(rows))


def practise(session: Session, access: Access, uid: uuid.UUID | None = None) -> Lease | None:
    """Lend a practice task: this one, as often as wanted, or the first not done yet; None where all are done.

    Raises NotFound for a task that is none of practice.
    """
    rows = find_standing(session, access).practice
    wanted = [row for row in rows if (not row.is_done if uid is None else row.uid == uid)]
    if uid is not None and not wanted:
        raise NotFound("There is no such practice task. Choose one from the list.")
    return _lend(session, access, wanted[0].task_id) if wanted else None


def go_on(session: Session, access: Access) -> Lease | None:
    """Lend the next task of the test, beginning an attempt where none is open; None where the attempt has none left.

    Raises Conflict with what keeps the person from it.
    """
    leases.lock_person(session, access.project.id, access.user.id)
    standing = find_standing(session, access)
    attempt = standing.open_attempt
    if attempt is None:
        if standing.why_no_test:
            raise Conflict(standing.why_no_test)
        attempt = _begin(session, access, standing)
    row = next((row for row in queries.list_tasks(session, attempt.id) if row.judgement_id is None), None)
    return _lend(session, access, row.task.id) if row else None


def take_answer(session: Session, access: Access, task: Task, judgement: Judgement) -> None:
    """Note an answer to a task of the test; the last one ends the attempt, which has a score from then on.

    Where an admin ended the attempt meanwhile, what they decided stands.
    """
    attempts = queries.list_attempts(session, access.project.id, access.user.id, lock=True)
    attempt = next((attempt for attempt in attempts if attempt.state == QualificationState.OPEN), None)
    reference = reference_queries.find_reference(session, task.id)
    if attempt is None or reference is None:
        return
    queries.set_answer(session, attempt.id, task.id, judgement.id, reference.id)
    rows = queries.list_tasks(session, attempt.id)
    if any(row.judgement_id is None for row in rows):
        return
    compared = [_compare(session, access, row) for row in rows]
    score = references.measure((str(item.work.prompt.id), item.pairs) for item in compared).value
    attempt.score = score
    is_met = references.meets(score, attempt.pass_mark)
    attempt.state = QualificationState.PASSED if is_met else QualificationState.FAILED
    attempt.ended_at = datetime.now(UTC)


def find_practised(session: Session, access: Access, uid: uuid.UUID) -> Compared:
    """A person's last answer to a practice task beside the reference. Raises NotFound where there is none."""
    work = tasks.find_work(session, access, uid)
    judgement = judgement_queries.find_current(session, work.task.id, access.user.id)
    reference = reference_queries.find_reference(session, work.task.id)
    if work.task.purpose != Purpose.PRACTICE or judgement is None or reference is None:
        raise NotFound("You have not done this practice task.")
    return compare_work(session, work, judgement.id, reference)


def find_result(session: Session, access: Access, uid: uuid.UUID) -> tuple[Qualification, list[Compared]]:
    """An attempt of this person that is over, with what differed. Raises NotFound, also while it goes on."""
    attempt = queries.find_attempt(session, access.project.id, access.user.id, uid)
    if attempt is None or attempt.state not in (QualificationState.PASSED, QualificationState.FAILED):
        raise NotFound("There is no finished test of yours at that address.")
    rows = [row for row in queries.list_tasks(session, attempt.id) if row.judgement_id is not None]
    return attempt, [_compare(session, access, row) for row in rows]


def compare_work(session: Session, work: tasks.Work, judgement_id: int, reference: TaskReference) -> Compared:
    """A stored answer beside a version of the reference."""
    given = {place.sample: place.tier for place in judgement_queries.list_places(session, judgement_id)}
    places = {place.sample: place for place in reference_queries.list_places(session, reference.id)}
    shown = {output.sample: given[output.sample] for output in work.outputs}
    pairs = references.compare({sample: place.tier for sample, place in places.items()}, shown)
    return Compared(work, reference, places, shown, pairs)


def pass_by_hand(session: Session, access: Access, user_uid: uuid.UUID) -> None:
    """Open the work to a person without a test. Raises NotFound for nobody of the project."""
    user = _find_member(session, access, user_uid)
    leases.lock_person(session, access.project.id, user.id)
    attempts = queries.list_attempts(session, access.project.id, user.id, lock=True)
    if any(attempt.state == QualificationState.PASSED for attempt in attempts):
        return
    _void(access, [attempt for attempt in attempts if attempt.state == QualificationState.OPEN])
    session.flush()
    passed = Qualification(
        project_id=access.project.id,
        user_id=user.id,
        attempt=len(attempts) + 1,
        state=QualificationState.PASSED,
        pass_mark=SchoolSettings.model_validate(access.project.school).pass_mark,
        ended_at=datetime.now(UTC),
        decided_by_id=access.user.id,
    )
    queries.insert_attempt(session, passed, [])
    _record(session, access, "pass labeller", user)


def reset(session: Session, access: Access, user_uid: uuid.UUID) -> None:
    """Make a person's attempts count for nothing, so that they may take the test anew; what they answered stays."""
    user = _find_member(session, access, user_uid)
    leases.lock_person(session, access.project.id, user.id)
    attempts = queries.list_attempts(session, access.project.id, user.id, lock=True)
    counting = [attempt for attempt in attempts if attempt.state != QualificationState.VOID]
    if counting:
        _void(access, counting)
        _record(session, access, "reset qualification", user, attempts=len(counting))


def _begin(session: Session, access: Access, standing: Standing) -> Qualification:
    attempts = queries.list_attempts(session, access.project.id, access.user.id)
    attempt = Qualification(
        project_id=access.project.id,
        user_id=access.user.id,
        attempt=len(attempts) + 1,
        state=QualificationState.OPEN,
        pass_mark=standing.school.pass_mark,
    )
    granted = tasks.granted(session, tasks.find_membership(session, access))
    drawn = queries.draw_test_tasks(session, access.project.id, access.user.id, granted, standing.school.test_tasks)
    queries.insert_attempt(session, attempt, drawn)
    return attempt


def _lend(session: Session, access: Access, task_id: int) -> Lease:
    """The person's lease of a lesson: the one they hold, with its order, else a new start in a new order."""
    task = task_queries.get_task(session, task_id)
    held = leases.find_lease_of(session, task.id, access.user.id)
    length = tasks.LEASE_LENGTH[TaskKind.RANK]
    if held and leases.renew_lease(session, held.id, length):
        return held
    seed = random.getrandbits(62)
    order = [output.position for output in task_queries.list_outputs(session, task.id)]
    random.Random(seed).shuffle(order)
    lease_id = queries.lease_task(session, task, access.user.id, length=length, order=order, seed=seed)
    return leases.get_lease(session, lease_id)


def _compare(session: Session, access: Access, row: queries.AttemptRow) -> Compared:
    if row.judgement_id is None or row.reference_id is None:
        raise ValueError(f"task {row.task.id} of an attempt has no answer yet")
    work = tasks.find_work(session, access, row.task.uid)
    return compare_work(session, work, row.judgement_id, reference_queries.get_reference(session, row.reference_id))


def _void(access: Access, attempts: Sequence[Qualification]) -> None:
    for attempt in attempts:
        attempt.state, attempt.decided_by_id = QualificationState.VOID, access.user.id
        attempt.ended_at = attempt.ended_at or datetime.now(UTC)


def _find_member(session: Session, access: Access, uid: uuid.UUID) -> User:
    access.demand(Permission.MANAGE_SCHOOL)
    members = people.list_members(session, access.project.id)
    found = next((user for _, user in members if user.uid == uid), None)
    if found is None:
        raise NotFound("There is no such member of this project.")
    return found


def _record(session: Session, access: Access, action: str, user: User, **details: int) -> None:
    audit.record(
        session,
        actor=access.user,
        project=access.project,
        action=action,
        subject_kind="user",
        subject_uid=user.uid,
        **details,
    )
