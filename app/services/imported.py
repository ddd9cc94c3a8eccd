"""Responses that files bring: to be ranked, ranked already, wanted. Each is stored once, however often it comes."""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from app.intake.preparing import Rendered
from app.models import (
    Demonstration,
    DemonstrationOrigin,
    ImportKind,
    JudgeKind,
    Judgement,
    JudgementRank,
    Purpose,
    Sample,
    SampleOrigin,
    Task,
    TaskKind,
    TaskOutput,
    TaskState,
)
from app.queries import bulk
from app.queries import imported as queries
from app.queries import prompts as prompt_queries
from app.schemas.imports import Counts
from app.services import counters
from app.services.intake import Placed

_NAMES = uuid.UUID("7d0c7c5e-6a3b-4f6e-9a56-0f3f0f4c9a11")
"""Namespace of the keys of imported judgements: the same ranking by the same judge has the same key."""

COMPLETE = "stop"
"""Finish reason of a response that a file gives as finished."""

UNNAMED = "unnamed"

NOT_RANKABLE = "not ranked in the imported file"


@dataclass(frozen=True)
class Into:
    """Where responses go: which import brings them, of what kind."""

    project_id: int
    import_id: int
    kind: ImportKind


@dataclass(frozen=True)
class Given:
    """A prompt that is stored, with the responses that its row had."""

    line: int
    placed: Placed
    responses: Sequence[Rendered]
    annotator: str | None = None


def keep_answers(session: Session, project_id: int, given: Sequence[Given], counts: Counts) -> None:
    """Store what a file's conversations have of answers, each once."""
    wanted = {(one.placed.prompt_id, answer.text): answer for one in given for answer in one.responses}
    known = prompt_queries.list_imported(session, project_id, {prompt_id for prompt_id, _ in wanted})
    new = [key for key in wanted if key not in known]
    bulk.copy_rows(
        session,
        Sample,
        ("project_id", "prompt_id", "origin", "text", "html"),
        ((project_id, prompt_id, SampleOrigin.IMPORTED, text, wanted[prompt_id, text].html) for prompt_id, text in new),
    )
    counts.samples += len(new)


def keep_demonstrations(session: Session, project_id: int, given: Sequence[Given], counts: Counts) -> None:
    """Store the response of each record, unless its prompt has it."""
    wanted = list(dict.fromkeys((one.placed.prompt_id, one.responses[0].text.strip()) for one in given))
    known = queries.map_demonstrations(session, project_id, [prompt_id for prompt_id, _ in wanted])
    new = [one for one in wanted if one not in known]
    bulk.copy_rows(
        session,
        Demonstration,
        ("project_id", "prompt_id", "text", "origin", "status", "revision"),
        ((project_id, *one, DemonstrationOrigin.IMPORTED, "current", 1) for one in new),
    )
    counters.add(session, project_id, counters.DEMONSTRATIONS, len(new))
    counts.demonstrations += len(new)
    counts.doubled += len(given) - len(new)


def keep_outputs(
    session: Session, into: Into, given: Sequence[Given], counts: Counts, *, judgements_wanted: int
) -> None:
    """Open a task for each set of responses; on a prompt that is kept out, one that waits until the prompt is let in."""
    samples = _keep_samples(session, into.project_id, given, counts)
    tasks = _keep_tasks(session, into, given, samples, counts, judgements_wanted=judgements_wanted)
    counts.doubled += len(given) - sum(is_new for *_, is_new in tasks)


def keep_rankings(
    session: Session, into: Into, given: Sequence[Given], counts: Counts, *, pool: str
) -> list[tuple[int, str]]:
    """Store each ranking as the judgement of its annotator; what cannot be, as (line, reason).

    An annotator is known by name within a pool. All rankings of one set of responses are judgements of one task.
    """
    samples = _keep_samples(session, into.project_id, given, counts)
    tasks = _keep_tasks(session, into, given, samples, counts, judgements_wanted=1)
    judges = queries.ensure_judges(session, into.project_id, JudgeKind.IMPORTED, {_judge(pool, one) for one in given})
    known = queries.map_tiers(session, {task for task, *_ in tasks}, list(judges.values()))
    refused: list[tuple[int, str]] = []
    new: list[_Ranking] = []
    for one, (task, outputs, _) in zip(given, tasks, strict=True):
        judge = judges[_judge(pool, one)]
        places = {outputs[samples[one.placed.prompt_id, response.text]]: response.tier for response in one.responses}
        before = known.get((task, judge))
        if before is None:
            known[task, judge] = places
            new.append(_Ranking(task, judge, places))
        elif before == places:
            counts.doubled += 1
        else:
            refused.append(
                (
                    one.line,
                    f"{one.annotator or 'somebody without a name'} has ranked these responses in another order "
                    "already; name each annotator, or leave one of the two out",
                )
            )
    _insert_judgements(session, into.project_id, new)
    counts.judgements += len(new)
    return refused


@dataclass(frozen=True)
class _Ranking:
    task: int
    judge: int
    places: Mapping[int, int | None]
    """Tier of each output by its id."""


def _judge(pool: str, one: Given) -> str:
    return f"{pool}/{one.annotator or UNNAMED}"


def _insert_judgements(session: Session, project_id: int, new: Sequence[_Ranking]) -> None:
    ids = bulk.take_ids(session, Judgement, len(new))
    bulk.copy_rows(
        session,
        Judgement,
        ("id", "project_id", "task_id", "judge_id", "idempotency_key", "status"),
        (
            (id_, project_id, one.task, one.judge, uuid.uuid5(_NAMES, f"{one.task}/{one.judge}"), "current")
            for id_, one in zip(ids, new, strict=True)
        ),
    )
    bulk.copy_rows(
        session,
        JudgementRank,
        ("project_id", "judgement_id", "output_id", "tier", "reason"),
        (
            (project_id, id_, output, tier, NOT_RANKABLE if tier is None else None)
            for id_, one in zip(ids, new, strict=True)
            for output, tier in one.places.items()
        ),
    )


def _keep_samples(
    session: Session, project_id: int, given: Sequence[Given], counts: Counts
) -> dict[tuple[int, str], int]:
    """Ids of the responses by prompt and text, those that are new stored."""
    wanted: dict[tuple[int, str], Rendered] = {}
    for one in given:
        for response in one.responses:
            wanted.setdefault((one.placed.prompt_id, response.text), response)
    known = queries.map_samples(session, project_id, {prompt_id for prompt_id, _ in wanted})
    new = [key for key in wanted if key not in known]
    ids = bulk.take_ids(session, Sample, len(new))
    bulk.copy_rows(
        session,
        Sample,
        ("id", "project_id", "prompt_id", "origin", "text", "html", "finish_reason"),
        (
            (id_, project_id, prompt_id, SampleOrigin.IMPORTED, text, wanted[prompt_id, text].html, COMPLETE)
            for id_, (prompt_id, text) in zip(ids, new, strict=True)
        ),
    )
    counts.samples += len(new)
    return known | dict(zip(new, ids, strict=True))


def _keep_tasks(
    session: Session,
    into: Into,
    given: Sequence[Given],
    samples: Mapping[tuple[int, str], int],
    counts: Counts,
    *,
    judgements_wanted: int,
) -> list[tuple[int, Mapping[int, int], bool]]:
    """For each record the task that shows its responses and no others, its outputs by sample, and whether it is new with it."""
    sets = [
        (one.placed.prompt_id, frozenset(samples[one.placed.prompt_id, response.text] for response in one.responses))
        for one in given
    ]
    known = queries.map_tasks(session, into.project_id, {prompt_id for prompt_id, _ in sets}, into.kind)
    new = [wanted for wanted in dict.fromkeys(sets) if wanted not in known]
    ids = bulk.take_ids(session, Task, len(new))
    prompts = queries.map_prompts(session, [prompt_id for prompt_id, _ in new])

    def columns(task_id: int, prompt_id: int) -> tuple[Any, ...]:
        needs, is_active = prompts[prompt_id]
        state = TaskState.OPEN if is_active else TaskState.WAITING
        if into.kind == ImportKind.RANKINGS:
            state = TaskState.DONE
        of = (task_id, into.project_id, into.import_id, TaskKind.RANK, Purpose.TRAIN, state)
        return (*of, prompt_id, judgements_wanted, list(needs))

    names = ("id", "project_id", "import_id", "kind", "purpose", "state", "prompt_id", "judgements_wanted", "needs")
    rows = [columns(task_id, prompt_id) for task_id, (prompt_id, _) in zip(ids, new, strict=True)]
    bulk.copy_rows(session, Task, names, rows)
    output_ids = iter(bulk.take_ids(session, TaskOutput, sum(len(shown) for _, shown in new)))
    outputs: list[tuple[int, int, int, int, int]] = []
    for task_id, wanted in zip(ids, new, strict=True):
        made = {sample: next(output_ids) for sample in sorted(wanted[1])}
        known[wanted] = (task_id, made)
        outputs += [
            (output, into.project_id, task_id, position, sample)
            for position, (sample, output) in enumerate(made.items())
        ]
    bulk.copy_rows(session, TaskOutput, ("id", "project_id", "task_id", "position", "sample_id"), outputs)
    counts.tasks += len(new)
    fresh = set(new)
    found = []
    for wanted in sets:
        found.append((*known[wanted], wanted in fresh))
        fresh.discard(wanted)
    return found
