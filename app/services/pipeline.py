"""Where the loop stands: one reading of the database for the picture, its figures, and why nothing happens."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy.orm import Session

from app.models import Checkpoint, CheckpointKind, ParentRole, Project, Prompt, Round, Run, RunKind
from app.queries import pipeline as queries
from app.queries import runs as run_queries
from app.schemas.projects import AutomationSettings
from app.services import checkpoints, counters, lineage, sampling


@dataclass(frozen=True)
class Loop:
    """The state of a project's loop. Counts are of now; `fresh` judgements are those since the last reward-model run."""

    round: Round
    policy: Checkpoint
    sft: Checkpoint | None
    reward: Checkpoint | None
    is_reward_of_sft: bool
    candidates: Sequence[Checkpoint]
    prompts: int
    passed_over: int
    """Of them, those that gave fewer different answers than a task shows."""
    demonstrations: int
    ready: int
    judgements: int
    fresh: int
    runs: Sequence[Run]
    last_runs: dict[RunKind, Run]
    automation: AutomationSettings

    @property
    def missing(self) -> int:
        """Judgements until the next reward model."""
        return max(0, self.automation.judgements_per_reward_model - self.fresh)

    @property
    def promotable(self) -> list[Checkpoint]:
        """Models newer than the active one that wait for a person; the first SFT model takes over by itself."""
        first_sft = CheckpointKind.SFT if self.round.number == 1 and self.automation.is_on else None
        return [one for one in self.candidates if one.kind in checkpoints.PROMOTABLE and one.kind != first_sft]

    @property
    def refused_reward(self) -> Checkpoint | None:
        """The newest reward model, where it was held back for being worse than the active one."""
        newest = next((one for one in self.candidates if one.kind == CheckpointKind.REWARD), None)
        return newest if newest is not None and self.reward is not None and newest.id > self.reward.id else None

    def live(self, kind: RunKind) -> Run | None:
        """The run of this stage that waits or goes on."""
        return next((run for run in self.runs if run.kind == kind), None)


@dataclass(frozen=True)
class Answers:
    """One held-out prompt and, by checkpoint id, what each model answered; `html` is sanitised already."""

    prompt: Prompt
    by_checkpoint: dict[int, queries.AnswerRow]


def read_loop(session: Session, project: Project) -> Loop:
    """Everything the pipeline page shows of the present. Raises NotFound before the first round."""
    round_ = checkpoints.open_round(session, project.id)
    policy = checkpoints.active_policy(session, project.id)
    judgements = counters.get(session, project.id, counters.JUDGEMENTS)
    last_runs = {kind: run for kind in RunKind if (run := run_queries.find_latest_run(session, project.id, kind))}
    last_reward = last_runs.get(RunKind.REWARD)
    sft = checkpoints.latest(session, project.id, CheckpointKind.SFT)
    reward = checkpoints.active_reward(session, project.id)
    return Loop(
        round=round_,
        policy=policy,
        sft=sft,
        reward=reward,
        is_reward_of_sft=sft is not None and reward is not None and checkpoints.is_fitted_from(session, reward, sft),
        candidates=queries.list_candidates(session, project.id, newer_than=policy.id),
        prompts=queries.count_sampled_prompts(session, project.id),
        passed_over=sampling.count_passed_over(session, project, round_.id),
        demonstrations=counters.get(session, project.id, counters.DEMONSTRATIONS),
        ready=queries.count_ready_tasks(session, project.id, round_.id),
        judgements=judgements,
        fresh=max(0, judgements - (last_reward.judgement_count if last_reward else 0)),
        runs=queries.list_live_runs(session, project.id),
        last_runs=last_runs,
        automation=AutomationSettings.model_validate(project.automation),
    )


def compared_models(session: Session, project_id: int, *, also: Checkpoint | None = None) -> list[Checkpoint]:
    """Models worth reading side by side: base, the SFT model behind it, the active policy, and the newest or `also`."""
    active = checkpoints.active_policy(session, project_id)
    newest = also or checkpoints.latest(session, project_id, CheckpointKind.POLICY) or active
    nodes = {node.checkpoint.id: node for node in lineage.lineage(session, project_id)}
    sft = nodes[newest.id].parent(ParentRole.INIT) or checkpoints.latest(session, project_id, CheckpointKind.SFT)
    base = checkpoints.latest(session, project_id, CheckpointKind.BASE)
    chosen = [one for one in (base, sft, active, newest) if one is not None and one.kind != CheckpointKind.REWARD]
    return list({one.id: one for one in chosen}.values())


def read_answers(session: Session, project_id: int, models: Sequence[Checkpoint]) -> list[Answers]:
    """The same held-out prompts answered by these models; nothing before any were drawn."""
    rows = (
        queries.list_answers(session, project_id, [model.id for model in models], sampling.SHOWCASE_PROMPTS)
        if models
        else []
    )
    prompts = {row.prompt.id: row.prompt for row in rows}
    return [
        Answers(prompt, {row.checkpoint_id: row for row in rows if row.prompt.id == prompt.id})
        for prompt in prompts.values()
    ]
