"""Answers to tasks that ask for no ranking: which of two outputs is better, how good one is, what a prompt is.

Each is a judgement like any other; what a kind has of its own is how its form is read, and what follows from the answer.
"""

import uuid
from collections.abc import Sequence
from dataclasses import replace

from sqlalchemy.orm import Session

from app.models import Judgement, JudgementStatus, TaskKind
from app.permissions import Access
from app.queries import prompts as prompt_queries
from app.schemas.judgements import Ranking, RankingForm, read_preference, read_ranking
from app.services import judgements, prompt_labels, tasks
from app.services.judgements import InvalidRanking, Questions

KINDS = (TaskKind.COMPARE, TaskKind.RATE, TaskKind.LABEL_PROMPT)
"""Those whose forms are read here."""

Fields = Sequence[tuple[str, str]]


def find_questions(session: Session, access: Access, kind: TaskKind, version: int | None = None) -> Questions:
    """What a task of this kind asks, by a version of the label schema."""
    return judgements.find_questions(session, access, version).for_kind(kind)


def submit(session: Session, access: Access, kind: TaskKind, uid: uuid.UUID, fields: Fields) -> Judgement:
    """Store a person's answer and what follows from it; raises what `judgements.submit_ranking` does."""
    work, former = _lock(session, access, kind, uid)
    judgement = judgements.submit_ranking(session, access, uid, _read(work, fields), kind=kind)
    _follow(session, access, work, former, judgement)
    return judgement


def revise(
    session: Session, access: Access, kind: TaskKind, uid: uuid.UUID, fields: Fields, *, of_revision: int
) -> Judgement:
    """Store a new version of a person's answer; raises what `judgements.revise` does."""
    work, former = _lock(session, access, kind, uid)
    judgement = judgements.revise(session, access, uid, _read(work, fields), of_revision=of_revision, kind=kind)
    _follow(session, access, work, former, judgement)
    return judgement


def _lock(session: Session, access: Access, kind: TaskKind, uid: uuid.UUID) -> tuple[tasks.Work, Judgement | None]:
    """A task with this person's answer so far, locked so that no request of theirs at the same moment adds another."""
    if kind == TaskKind.LABEL_PROMPT:  # before its task: a quarantine locks every open task of the prompt
        prompt_queries.lock_prompt(session, tasks.find_work(session, access, uid, kind=kind).prompt.id)
    work = tasks.lock_work(session, access, uid, kind=kind)
    return work, judgements.find_stored(session, work)


def _read(work: tasks.Work, fields: Fields) -> Ranking:
    """The answer of a form, its outputs placed as it means them. Raises InvalidRanking."""
    preference, problems = None, dict[str, str]()
    tiers: dict[uuid.UUID, int] = {}
    if work.task.kind == TaskKind.COMPARE:
        left, right = (output.sample for output in sorted(work.outputs, key=lambda output: output.position))
        preference = read_preference(RankingForm.from_fields(fields).preference, left, right)
        tiers = preference.tiers if preference else {}
        if preference is None:
            problems["preference"] = "Say which response is better and by how much, or that they tie."
    elif work.task.kind == TaskKind.RATE:
        tiers = {output.sample: 1 for output in work.outputs}
    sent = [(name, value) for name, value in fields if not name.startswith("tier-")]
    read = read_ranking([*sent, *((f"tier-{sample}", str(tier)) for sample, tier in tiers.items())])
    if read.ranking is None or problems:
        raise InvalidRanking({**problems, **read.problems})
    return replace(read.ranking, preference=preference)


def _follow(session: Session, access: Access, work: tasks.Work, former: Judgement | None, judgement: Judgement) -> None:
    """Let a new answer have its effect; one sent again had it."""
    is_new = judgement.status == JudgementStatus.CURRENT and (former is None or former.id != judgement.id)
    if is_new and work.task.kind == TaskKind.LABEL_PROMPT:
        prompt_labels.apply(session, access, work.prompt.id, judgement, former)
