"""How well people meet the gold tasks, the misses they are shown, and their appeals.

Accuracy goes by first answers, since a revision may follow a miss that was shown, and by the reference that holds now: a new
version measures everybody anew.
"""

import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from sqlalchemy.orm import Session

from app.errors import BadInput, Conflict, NotFound
from app.models import Appeal, AppealState, User
from app.permissions import Access, Permission
from app.queries import gold as queries
from app.queries import references as reference_queries
from app.queries import tasks as task_queries
from app.schemas.projects import SchoolSettings
from app.schemas.references import ReferenceForm
from app.services import audit, notices, qualifications, references, tasks

if TYPE_CHECKING:
    from app.statistics import Estimate

LONGEST_APPEAL = 5_000
"""Characters of an appeal, and of the reply."""

_NOTICES = {
    AppealState.UPHELD: "Your appeal about a gold task was upheld: the reference was changed.",
    AppealState.DECLINED: "Your appeal about a gold task was declined. An admin says why.",
}


@dataclass(frozen=True)
class Accuracy:
    """How a person meets the gold tasks: share of pairs ordered alike, with its interval over prompts."""

    estimate: "Estimate"
    answers: int
    misses: int


@dataclass(frozen=True)
class Miss:
    """A gold task that a person missed, or appealed about, as they see it."""

    compared: qualifications.Compared
    appeal: Appeal | None


def measure(session: Session, access: Access, *, user_id: int | None = None) -> dict[int, Accuracy]:
    """How people meet the gold tasks, by person; those who had none are left out."""
    mark = SchoolSettings.model_validate(access.project.school).pass_mark
    by_person: dict[int, list[tuple[str, tuple[references.Pair, ...]]]] = {}
    for answer in queries.list_answers(session, access.project.id, user_id=user_id):
        pairs = references.compare(answer.reference, answer.given)
        by_person.setdefault(answer.user_id, []).append((str(answer.prompt_id), pairs))
    return {
        person: Accuracy(references.measure(rows), len(rows), sum(is_miss(pairs, mark) for _, pairs in rows))
        for person, rows in by_person.items()
    }


def is_miss(pairs: Iterable[references.Pair], mark: float) -> bool:
    """Whether fewer of a task's pairs are ordered alike than the project's mark asks for."""
    alike = [pair.is_alike for pair in pairs]
    return not references.meets(sum(alike) / len(alike), mark)


def list_misses(session: Session, access: Access) -> dict[uuid.UUID, Appeal | None]:
    """The gold tasks this person missed and may know of, with their appeals; also those appealed that are missed no more."""
    appeals = queries.map_appeals(session, access.project.id, access.user.id)
    school = SchoolSettings.model_validate(access.project.school)
    missed = [
        answer.task
        for answer in (
            queries.list_answers(session, access.project.id, user_id=access.user.id) if school.shows_gold_misses else ()
        )
        if is_miss(references.compare(answer.reference, answer.given), school.pass_mark)
    ]
    return {task: appeals.get(task) for task in dict.fromkeys([*missed, *appeals])}


def find_miss(session: Session, access: Access, uid: uuid.UUID) -> Miss:
    """A person's first answer to a gold task they missed, beside the reference.

    Raises NotFound for every other task, so that nobody can ask which ones are gold.
    """
    if uid not in list_misses(session, access):
        raise NotFound("There is nothing to see here about a task of yours.")
    return _compare(session, access, uid)


def appeal(session: Session, access: Access, uid: uuid.UUID, body: str) -> Appeal:
    """Ask an admin to look at the reference of a missed task again. Raises NotFound, BadInput, Conflict for a second one."""
    found = find_miss(session, access, uid)
    text = _parse(body, "appeal")
    task = task_queries.lock_task(session, found.compared.work.task.id)
    if queries.find_appeal_of(session, task.id, access.user.id):
        raise Conflict("You have appealed about this task already; an admin's answer is shown here.")
    made = Appeal(project_id=access.project.id, task_id=task.id, user_id=access.user.id, body=text)
    session.add(made)
    session.flush()
    return made


def find_appeal(session: Session, access: Access, uid: uuid.UUID) -> tuple[Appeal, User, references.Referenced, Miss]:
    """An appeal with who made it, the task with its reference, and the answer it is about. Raises NotFound."""
    access.demand(Permission.MANAGE_SCHOOL)
    found = queries.find_appeal(session, access.project.id, uid)
    if found is None:
        raise NotFound("There is no appeal at that address.")
    made, user, task = found
    theirs = Access(user=user, project=access.project, roles=frozenset(), cohort=access.cohort)
    return made, user, references.find_referenced(session, access, task.uid), _compare(session, theirs, task.uid)


def uphold(
    session: Session, access: Access, uid: uuid.UUID, form: ReferenceForm, *, of_version: int, reply: str
) -> None:
    """Store another version of the reference, by which every answer is measured from now on, and tell the labeller.

    Raises NotFound, BadInput, InvalidReference, Conflict where it was decided or the reference changed meanwhile.
    """
    made, _, of, _ = _find_open(session, access, uid)
    text = _parse(reply, "reply") if reply.strip() else None
    if references.tiers_of(references.read_form(of, form)) == {place.sample: place.tier for place in of.places}:
        raise BadInput("This order is the one that holds. Change it, or decline the appeal and say why it stays.")
    references.revise(session, access, of.task.uid, form, of_version=of_version)
    _decide(session, access, made, AppealState.UPHELD, text)


def decline(session: Session, access: Access, uid: uuid.UUID, reply: str) -> None:
    """Leave the reference as it is and say why. Raises NotFound, BadInput, Conflict where it was decided."""
    made, _, _, _ = _find_open(session, access, uid)
    _decide(session, access, made, AppealState.DECLINED, _parse(reply, "reply"))


def _find_open(session: Session, access: Access, uid: uuid.UUID) -> tuple[Appeal, User, references.Referenced, Miss]:
    found = find_appeal(session, access, uid)
    if found[0].state != AppealState.OPEN:
        raise Conflict("This appeal was decided already, perhaps by another admin.")
    return found


def _decide(session: Session, access: Access, made: Appeal, state: AppealState, reply: str | None) -> None:
    made.state, made.reply = state, reply
    made.decided_by_id, made.decided_at = access.user.id, datetime.now(UTC)
    notices.tell(session, task_queries.get_task(session, made.task_id), [made.user_id], _NOTICES[state])
    audit.record(
        session,
        actor=access.user,
        project=access.project,
        action="uphold appeal" if state == AppealState.UPHELD else "decline appeal",
        subject_kind="appeal",
        subject_uid=made.uid,
    )


def _compare(session: Session, access: Access, uid: uuid.UUID) -> Miss:
    work = tasks.find_work(session, access, uid)
    judgement = queries.find_first_answer(session, work.task.id, access.user.id)
    reference = reference_queries.find_reference(session, work.task.id)
    if judgement is None or reference is None:
        raise NotFound("There is nothing to see here about a task of yours.")
    compared = qualifications.compare_work(session, work, judgement.id, reference)
    return Miss(compared, queries.find_appeal_of(session, work.task.id, access.user.id))


def _parse(text: str, field: str) -> str:
    read = text.replace("\r\n", "\n").replace("\x00", "").strip()
    if not 1 <= len(read) <= LONGEST_APPEAL:
        raise BadInput(f"Write between 1 and {LONGEST_APPEAL:,} characters; these are {len(read):,}.", field=field)
    return read
