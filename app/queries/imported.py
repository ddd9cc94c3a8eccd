"""SQL of imported responses: what of a file is here already, by the prompts it is about."""

from collections.abc import Collection, Mapping, Sequence

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from app.models import (
    Demonstration,
    DemonstrationOrigin,
    Import,
    ImportKind,
    Judge,
    JudgeKind,
    Judgement,
    JudgementRank,
    JudgementStatus,
    Prompt,
    PromptStatus,
    Sample,
    SampleOrigin,
    Task,
    TaskOutput,
)


def map_demonstrations(session: Session, project_id: int, prompt_ids: Collection[int]) -> set[tuple[int, str]]:
    """Prompt and text of the demonstrations that files gave for these prompts."""
    rows = session.execute(
        select(Demonstration.prompt_id, Demonstration.text).where(
            Demonstration.project_id == project_id,
            Demonstration.prompt_id == func.any(list(prompt_ids)),
            Demonstration.origin == DemonstrationOrigin.IMPORTED,
        )
    )
    return {(prompt_id, text) for prompt_id, text in rows}


def map_samples(session: Session, project_id: int, prompt_ids: Collection[int]) -> dict[tuple[int, str], int]:
    """Ids of the finished responses that files gave to these prompts, by prompt and text."""
    rows = session.execute(
        select(Sample.prompt_id, Sample.text, Sample.id)
        .where(
            Sample.project_id == project_id,
            Sample.prompt_id == func.any(list(prompt_ids)),
            Sample.origin == SampleOrigin.IMPORTED,
            Sample.finish_reason == "stop",
        )
        .order_by(Sample.id.desc())
    )
    return {(prompt_id, text): sample_id for prompt_id, text, sample_id in rows}


def map_tasks(
    session: Session, project_id: int, prompt_ids: Collection[int], kind: ImportKind
) -> dict[tuple[int, frozenset[int]], tuple[int, Mapping[int, int]]]:
    """Tasks on these prompts that imports of a kind made: by prompt and set of samples, with their outputs by sample."""
    rows = session.execute(
        select(Task.prompt_id, Task.id, TaskOutput.sample_id, TaskOutput.id)
        .join(TaskOutput, TaskOutput.task_id == Task.id)
        .join(Import, Import.id == Task.import_id)
        .where(Task.project_id == project_id, Task.prompt_id == func.any(list(prompt_ids)), Import.kind == kind)
        .order_by(Task.id.desc())
    )
    outputs: dict[tuple[int, int], dict[int, int]] = {}
    for prompt_id, task_id, sample_id, output_id in rows:
        outputs.setdefault((prompt_id, task_id), {})[sample_id] = output_id
    return {(prompt_id, frozenset(shown)): (task_id, shown) for (prompt_id, task_id), shown in outputs.items()}


def map_prompts(session: Session, prompt_ids: Collection[int]) -> dict[int, tuple[Sequence[str], bool]]:
    """What each prompt needs, and whether it is active; kept so until the transaction ends."""
    rows = session.execute(
        select(Prompt.id, Prompt.needs, Prompt.status)
        .where(Prompt.id == func.any(list(prompt_ids)))
        .order_by(Prompt.id)
        .with_for_update(read=True)
    )
    return {prompt_id: (needs, status == PromptStatus.ACTIVE) for prompt_id, needs, status in rows}


def ensure_judges(session: Session, project_id: int, kind: JudgeKind, names: Collection[str]) -> dict[str, int]:
    """Ids of the judges of these names, made at need."""
    rows = [{"project_id": project_id, "kind": kind, "version": name} for name in sorted(names)]
    if rows:
        session.execute(insert(Judge).on_conflict_do_nothing(), rows)
    found = session.execute(
        select(Judge.version, Judge.id).where(
            Judge.project_id == project_id, Judge.kind == kind, Judge.version == func.any(list(names))
        )
    )
    return {str(name): judge_id for name, judge_id in found}


def map_tiers(
    session: Session, task_ids: Collection[int], judge_ids: Collection[int]
) -> dict[tuple[int, int], Mapping[int, int | None]]:
    """Current rankings of these tasks by these judges: tier by output, by task and judge."""
    rows = session.execute(
        select(Judgement.task_id, Judgement.judge_id, JudgementRank.output_id, JudgementRank.tier)
        .join(JudgementRank, JudgementRank.judgement_id == Judgement.id)
        .where(
            Judgement.task_id == func.any(list(task_ids)),
            Judgement.judge_id == func.any(list(judge_ids)),
            Judgement.status != JudgementStatus.SUPERSEDED,
        )
    )
    found: dict[tuple[int, int], dict[int, int | None]] = {}
    for task_id, judge_id, output_id, tier in rows:
        found.setdefault((task_id, judge_id), {})[output_id] = tier
    return dict(found)
