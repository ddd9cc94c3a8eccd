"""Improving the best output of a ranking: the text is a demonstration, and the top of one more ranking of the same outputs.

That ranking has a task of its own, which is done at once: nobody else is lent it, and its export is that of any ranking.
"""

import random
import uuid
from datetime import UTC, datetime

from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.errors import BadInput, Conflict
from app.markup import render_markdown
from app.models import (
    LESSONS,
    Cohort,
    Demonstration,
    DemonstrationOrigin,
    Json,
    Judgement,
    JudgementStatus,
    Lease,
    LeaseState,
    Purpose,
    Sample,
    SampleOrigin,
    Task,
    TaskKind,
    TaskState,
)
from app.permissions import Access
from app.queries import demonstrations as demonstration_queries
from app.queries import improvements as queries
from app.queries import judgements as judgement_queries
from app.queries import tasks as task_queries
from app.queries.tasks import OutputRow
from app.schemas.demonstrations import Writing
from app.schemas.judgements import Ranking
from app.services import demonstrations, exclusions, judgements, tasks


def find_best(session: Session, access: Access, work: tasks.Work) -> OutputRow | None:
    """The output this person put first, where they are asked to improve it: the one shown first among several.

    None where the project does not ask, this person only measures, they have improved it already, or the ranking has no best.
    Neither the task's purpose nor the prompt's split is asked for, or a ranking would tell what it is; lessons tell themselves.
    """
    task = work.task
    is_asked = access.project.asks_to_edit_best and access.cohort == Cohort.TRAINING
    is_work = task.kind == TaskKind.RANK and task.purpose not in LESSONS and task.derived_from_id is None
    if not (is_asked and is_work) or demonstration_queries.find_of_task(session, task.id, access.user.id):
        return None
    judgement = judgements.find_stored(session, work)
    places = judgement_queries.list_places(session, judgement.id) if judgement else []
    best = {place.sample for place in places if place.tier == 1}
    return next((output for output in work.outputs if output.sample in best), None)


def check_best(best: OutputRow, improved: uuid.UUID | None) -> None:
    """Raise Conflict where a page or a draft improves an output that is not the best any more."""
    if improved != best.sample:
        raise Conflict(
            "You have put another response first since you began this text. The text is kept: make it an improvement of the one "
            "named above, or go on without."
        )


def save_draft(session: Session, access: Access, uid: uuid.UUID, content: Json) -> datetime | None:
    """Keep a text in progress; gives the time, or None where it is not asked for (any more)."""
    work = tasks.find_work(session, access, uid, kind=TaskKind.RANK)
    if find_best(session, access, work) is None:
        return None
    task_queries.save_draft(session, work.task, access.user.id, content)
    return datetime.now(UTC)


def submit(
    session: Session,
    access: Access,
    uid: uuid.UUID,
    writing: Writing,
    *,
    improved: uuid.UUID | None,
    idempotency_key: uuid.UUID,
) -> Demonstration:
    """Store the best output, the sample `improved`, as this person improved it; the same key again gives what was stored before.

    Raises NotFound for a ranking that is not theirs, BadInput where the text is none or is one of the outputs, Conflict where
    it is not asked for (any more) or another output is the best now.
    """
    work = tasks.lock_work(session, access, uid, kind=TaskKind.RANK)
    task = work.task
    if stored := demonstration_queries.find_by_key(session, idempotency_key):
        if (stored.task_id, stored.author_id) != (task.id, access.user.id):
            raise Conflict("This page was already used for another text. Reload it and submit again.")
        return stored
    best = find_best(session, access, work)
    former = judgements.find_stored(session, work)
    if best is None or former is None:
        raise Conflict("No improved response is asked for here (any more). What you stored before is kept.")
    check_best(best, improved)
    text = demonstrations.check_text(writing.text)
    for output in work.outputs:
        if tasks.same_text(output.text) == tasks.same_text(text):
            letter = work.letters[output.sample]
            raise BadInput(f"This is response {letter}, unchanged. Improve it, or go on without.", field="text")
    parent = queries.get_sample(session, task.project_id, best.sample)
    try:
        with session.begin_nested():
            edited = _insert_sample(session, access, parent, text)
            _insert_ranking(session, access, work, former, edited, idempotency_key)
            demonstration = demonstrations.add(
                session,
                access.project,
                prompt_id=task.prompt_id,
                text=text,
                author=access.user,
                origin=DemonstrationOrigin.EDITED,
                task_id=task.id,
                parent=parent,
                idempotency_key=idempotency_key,
                clocks=(writing.active_ms, writing.idle_ms),
                is_counted=task.purpose == Purpose.TRAIN,
            )
    except IntegrityError as error:
        if not demonstration_queries.is_key_taken(error):
            raise
        raise Conflict("This page was used for another text just now. Reload it and submit again.") from error
    task_queries.delete_draft(session, task.id, access.user.id)
    return demonstration


def _insert_sample(session: Session, access: Access, parent: Sample, text: str) -> Sample:
    sample = Sample(
        project_id=parent.project_id,
        prompt_id=parent.prompt_id,
        origin=SampleOrigin.EDITED,
        parent_id=parent.id,
        author_id=access.user.id,
        text=text,
        html=render_markdown(text),
    )
    queries.insert(session, sample)
    return sample


def _insert_ranking(
    session: Session, access: Access, work: tasks.Work, of: Judgement, edited: Sample, key: uuid.UUID
) -> None:
    """One more ranking, of the same purpose: the edited text first, below it the outputs as they were placed."""
    now = datetime.now(UTC)
    task = Task(
        project_id=edited.project_id,
        kind=TaskKind.RANK,
        purpose=work.task.purpose,
        state=TaskState.DONE,
        prompt_id=edited.prompt_id,
        round_id=work.task.round_id,
        derived_from_id=work.task.id,
        needs=work.task.needs,
    )
    queries.insert(session, task)
    samples = [*queries.list_sample_ids(session, work.task.id), edited.id]
    queries.insert_outputs(session, task, samples)
    lease = Lease(
        project_id=task.project_id,
        task_id=task.id,
        slot=1,
        user_id=access.user.id,
        state=LeaseState.SUBMITTED,
        expires_at=now,
        ended_at=now,
        shown_order=[*work.lease.shown_order, len(samples) - 1],
        order_seed=random.getrandbits(62),
    )
    queries.insert(session, lease)
    _insert_judgement(session, access, task, of, lease_id=lease.id, revision=1, key=key)


def _insert_judgement(
    session: Session, access: Access, task: Task, of: Judgement, *, lease_id: int | None, revision: int, key: uuid.UUID
) -> None:
    """What a derived ranking says, by the judgement it is made of: its last output first, the others a tier lower."""
    *others, edited = task_queries.list_outputs(session, task.id)
    new = judgement_queries.NewJudgement(
        project_id=task.project_id,
        task_id=task.id,
        user_id=access.user.id,
        lease_id=lease_id,
        revision=revision,
        idempotency_key=key,
        guideline_id=of.guideline_id,
        label_schema_id=of.label_schema_id,
        confidence=of.confidence,
        answers=of.answers,
    )
    ranks = [
        judgement_queries.NewRank(
            output_id=output.output_id,
            tier=None if place.tier is None else place.tier + 1,
            raw_column=None if place.tier is None else place.tier + 1,
            reason=place.reason,
            quality=place.quality,
            answers=place.answers,
        )
        for output, place in zip(others, judgement_queries.list_places(session, of.id), strict=True)
    ]
    ranks.append(judgement_queries.NewRank(output_id=edited.output_id, tier=1, raw_column=1))
    if judgement_queries.insert_judgement(session, new, ranks) is None:
        raise Conflict("This page was already used to submit something else. Reload it and submit again.")
    round_number = task_queries.find_round_number(session, task)
    judgements.count(session, access, task, [rank.tier for rank in ranks], round_number=round_number)


def revise_ranking(
    session: Session, access: Access, uid: uuid.UUID, ranking: Ranking, *, of_revision: int
) -> Judgement:
    """Store a new version of a ranking, and of the one that was made of it; raises what `judgements.revise` does.

    That one stands no more where the output that was improved is no longer put first: nobody said then where its text belongs.
    """
    judgement = judgements.revise(session, access, uid, ranking, of_revision=of_revision)
    derived = queries.find_derived(session, judgement.task_id, access.user.id)
    former = queries.find_newest(session, derived.id) if derived else None
    key = uuid.uuid5(judgement.idempotency_key, "derived")
    is_repeated = judgement.status != JudgementStatus.CURRENT or judgement_queries.find_by_key(session, key) is not None
    if derived is None or former is None or former.status == JudgementStatus.EXCLUDED or is_repeated:
        return judgement
    if former.status == JudgementStatus.CURRENT:
        exclusions.uncount(session, derived, former, access.user.id)
        judgement_queries.supersede(session, former)
    places = judgement_queries.list_places(session, judgement.id)
    if queries.get_improved(session, derived.id) in {place.sample for place in places if place.tier == 1}:
        revision = former.revision + 1
        _insert_judgement(session, access, derived, judgement, lease_id=former.lease_id, revision=revision, key=key)
    return judgement
