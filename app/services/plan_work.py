"""A worker's part of a sampling plan: which prompts come next, and how what was drawn becomes tasks.

A prompt, its task and the counts are written in one transaction under the job's fence. So a worker that is killed loses what it
was drawing and nothing else, and the next goes on where the last tasks were stored.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from sqlalchemy.orm import Session

from app import jobs as outbox
from app.errors import Conflict
from app.models import Checkpoint, Endpoint, Project, Prompt, Sampler, SamplingPlan, Stream
from app.queries import endpoints as endpoint_queries
from app.queries import plans as queries
from app.queries import prompts as prompt_queries
from app.queries import runs as run_queries
from app.queries.plans import Wanted
from app.schemas.plans import Lane, Order, Part, PartCounts, PlanCounts, PlanSettings
from app.services import checkpoints, endpoints, jobs, samplers, tasks
from app.services.endpoints import Target
from app.services.jobs import Claim
from app.services.samplers import Recipe
from app.services.tasks import NewSample

JOB = "sample_plan"

CANDIDATES = 4
"""Prompts looked at for each one chosen by disagreement."""

MOST_CANDIDATES = 4000

CANDIDATE_TEXTS = 4
"""Responses to a candidate that the reward models score."""

OTHERS = [kind for kind, queue in outbox.KINDS.items() if queue == outbox.KINDS[JOB] and kind != JOB]
"""Jobs of the same worker, which a plan lets go first."""


@dataclass(frozen=True)
class Voice:
    """A part of the mix, ready to be asked: its sampler, and the model's identity or the endpoint."""

    part: Part
    sampler: Sampler
    sha256: str | None
    target: Target | None
    reward_sha256: str | None


@dataclass(frozen=True)
class Work:
    """A plan in a worker's hands."""

    project: Project
    plan_id: int
    settings: PlanSettings
    voices: Sequence[Voice]
    lanes: Mapping[Lane, int]
    """Tasks wanted of each."""
    judges: tuple[str, str] | None
    """Identities of the two reward models whose disagreement orders the prompts."""
    writer: str | None
    """Identity of the model that answers candidates nobody has answered yet."""

    @property
    def wanted(self) -> Wanted:
        """Which prompts it may take."""
        return Wanted(self.project.id, self.settings.pools, self.settings.categories)

    @property
    def most_passed(self) -> int:
        """Prompts that may be passed over until there is no use in going on."""
        return 3 * self.settings.tasks + 50


@dataclass(frozen=True)
class Chosen:
    """A prompt whose turn it is."""

    prompt: Prompt
    lane: Lane


@dataclass(frozen=True)
class Drawn:
    """What came of it: the responses of a task, or why there are none."""

    chosen: Chosen
    samples: Sequence[NewSample] = ()
    problem: str | None = None


@dataclass(frozen=True)
class Candidate:
    """A prompt that may be chosen by disagreement, with responses there are: text, and whether it ended by itself."""

    prompt: Prompt
    texts: Sequence[tuple[str, bool]] = field(default=())


def load(session: Session, claim: Claim) -> Work:
    """What the job is to do. Raises Conflict where a model or endpoint of the plan is gone."""
    project = run_queries.get_project(session, claim.project_id)
    plan = queries.lock(session, project.id, claim.arguments["plan_id"])
    settings = PlanSettings.model_validate(plan.settings)
    known = queries.map_checkpoints(session, project.id, _checkpoints_of(settings))
    judges = [
        uid for uid in (settings.first_judge, settings.second_judge) if uid and settings.order == Order.DISAGREEMENT
    ]
    if missing := [uid for uid in _checkpoints_of(settings) if uid not in known]:
        raise Conflict(f"The plan names a model that the project no longer has ({missing[0]}). Make the plan anew.")
    outside = {row.uid: row for row in endpoint_queries.list_endpoints(session, project.id, with_removed=True)}
    voices = [
        _voice(session, project, part, known[part.source] if part.kind == "checkpoint" else outside[part.source], known)
        for part in settings.parts
    ]
    writers = [voice.sha256 for voice in voices if voice.sha256]
    return Work(
        project=project,
        plan_id=plan.id,
        settings=settings,
        voices=voices,
        lanes=settings.lanes(),
        judges=(known[judges[0]].sha256, known[judges[1]].sha256) if judges else None,
        writer=writers[0] if writers else checkpoints.active_policy(session, project.id).sha256,
    )


def _checkpoints_of(settings: PlanSettings) -> list[UUID]:
    found = [part.source for part in settings.parts if part.kind == "checkpoint"]
    found += [part.reward for part in settings.parts if part.reward]
    if settings.order == Order.DISAGREEMENT:
        found += [uid for uid in (settings.first_judge, settings.second_judge) if uid]
    return list(dict.fromkeys(found))


def _voice(
    session: Session, project: Project, part: Part, source: Checkpoint | Endpoint, known: Mapping[UUID, Checkpoint]
) -> Voice:
    reward = known[part.reward] if part.reward else None
    recipe = Recipe(
        source=source,
        temperature=part.temperature,
        top_p=part.top_p,
        max_new_tokens=part.max_new_tokens,
        prefix=part.prefix,
        best_of=part.best_of,
        reward=reward,
    )
    return Voice(
        part=part,
        sampler=samplers.ensure(session, project, recipe),
        sha256=source.sha256 if isinstance(source, Checkpoint) else None,
        target=endpoints.open_target(source) if isinstance(source, Endpoint) else None,
        reward_sha256=reward.sha256 if reward else None,
    )


def must_wait(session: Session) -> bool:
    """Whether other work of this worker is queued: labellers wait for their queue to be filled, nobody for a plan's next task."""
    return queries.has_others_waiting(session, OTHERS)


def next_candidates(session: Session, claim: Claim, work: Work, limit: int) -> list[Candidate]:
    """Candidates to be looked at, taken up on the first call; none where the order needs no look, or all are through."""
    jobs.heartbeat(session, claim)
    if work.judges is None:
        return []
    _take_up(session, work, PlanCounts.from_json(queries.lock(session, work.project.id, work.plan_id).counts))
    prompts = queries.list_unmeasured(session, work.plan_id, limit=limit)
    texts = queries.list_texts(session, [prompt.id for prompt in prompts], each=4 * CANDIDATE_TEXTS)
    return [Candidate(prompt, _different(texts.get(prompt.id, ()))) for prompt in prompts]


def _different(texts: Sequence[tuple[str, bool]]) -> list[tuple[str, bool]]:
    """Up to so many texts that differ to a reader, the newest first; none where it is only one."""
    found = {tasks.same_text(text): (text, has_ended) for text, has_ended in texts}
    return list(found.values())[-CANDIDATE_TEXTS:] if len(found) > 1 else []


def store_disagreements(
    session: Session, claim: Claim, work: Work, values: Mapping[int, float], problems: Mapping[int, str]
) -> None:
    """Keep what the two reward models made of candidates, under the fence."""
    jobs.heartbeat(session, claim)
    plan = queries.lock(session, work.project.id, work.plan_id)
    queries.set_disagreement(session, plan.id, values)
    queries.close_prompts(session, plan.id, dict(problems))
    counts = PlanCounts.from_json(plan.counts)
    counts.looked_at += len(values)
    counts.passed += len(problems)
    plan.counts = counts.to_json()


def next_prompts(session: Session, claim: Claim, work: Work, limit: int) -> list[Chosen]:
    """Prompts to answer next, streams and splits mixed as they will be in the end; none where the plan is through.

    So that the queue does not tell which is which, and a plan that is stopped half-way has its shares.
    """
    jobs.heartbeat(session, claim)
    counts = PlanCounts.from_json(queries.lock(session, work.project.id, work.plan_id).counts)
    if counts.passed > work.most_passed:
        return []
    _take_up(session, work, counts)
    turns: list[tuple[float, Chosen]] = []
    for lane, wanted in work.lanes.items():
        made = counts.made.get(lane.key, 0)
        waiting = queries.list_waiting(session, work.plan_id, lane.stream, lane.split, limit=min(wanted - made, limit))
        turns += [((made + at + 0.5) / wanted, Chosen(prompt, lane)) for at, (_, prompt) in enumerate(waiting)]
    turns.sort(key=lambda turn: turn[0])
    return [chosen for _, chosen in turns[:limit]]


def _take_up(session: Session, work: Work, counts: PlanCounts) -> None:
    """Have enough prompts waiting in each lane. Those of the control stream first, while all prompts are still to be had."""
    for lane, wanted in sorted(work.lanes.items(), key=lambda item: item[0].stream != Stream.CONTROL):
        taken, waiting = queries.count_taken(session, work.plan_id, lane.stream, lane.split)
        missing = wanted - counts.made.get(lane.key, 0) - waiting
        is_chosen = lane.stream == Stream.CHOSEN
        if is_chosen and work.judges is not None:
            missing = 0 if taken else min(CANDIDATES * wanted, MOST_CANDIDATES)
        if missing > 0:
            queries.take_up(
                session,
                work.plan_id,
                work.wanted,
                lane.stream,
                lane.split,
                count=missing,
                never_ranked=is_chosen and work.settings.order == Order.NEVER_RANKED,
            )


def store(
    session: Session, claim: Claim, work: Work, drawn: Sequence[Drawn], parts: Sequence[PartCounts], seconds: float
) -> PlanCounts:
    """Open a rank task for each prompt that was answered, under the fence; the counts so far.

    A prompt that was taken out meanwhile is passed over. Responses lie in an order of chance, so that no place tells a sampler.
    """
    jobs.heartbeat(session, claim)
    plan = queries.lock(session, work.project.id, work.plan_id)
    active = prompt_queries.lock_active(session, [one.chosen.prompt.id for one in drawn])
    counts = PlanCounts.from_json(plan.counts)
    problems: dict[int, str | None] = {}
    for one in drawn:
        prompt_id = one.chosen.prompt.id
        problem = one.problem or (None if prompt_id in active else "It was taken out of the work meanwhile.")
        problems[prompt_id] = problem
        if problem:
            counts.passed += 1
            continue
        _open_task(session, work, plan, one)
        key = one.chosen.lane.key
        counts.made[key] = counts.made.get(key, 0) + 1
    queries.close_prompts(session, plan.id, problems)
    counts.parts = counts.parts or [PartCounts() for _ in work.voices]
    for total, of_part in zip(counts.parts, parts, strict=True):
        total.add(of_part)
    counts.seconds += seconds
    plan.counts = counts.to_json()
    jobs.heartbeat(session, claim, progress=counts.tasks, total=work.settings.tasks)
    return counts


def _open_task(session: Session, work: Work, plan: SamplingPlan, one: Drawn) -> None:
    tasks.create_rank_task(
        session,
        work.project,
        prompt_id=one.chosen.prompt.id,
        round_id=None,
        samples=random.sample(one.samples, len(one.samples)),
        judgements_wanted=work.settings.judgements_wanted,
        priority=work.settings.priority,
        of_plan=(plan.id, one.chosen.lane.stream),
    )


def finish(session: Session, claim: Claim, work: Work) -> None:
    """The job has succeeded, with fewer tasks than wanted where prompts ran out. The result has what each model drew how fast."""
    counts = PlanCounts.from_json(queries.lock(session, work.project.id, work.plan_id).counts)
    speeds: dict[str, PartCounts] = {}
    for voice, part in zip(work.voices, counts.parts, strict=False):
        if voice.sha256:
            speeds.setdefault(str(voice.part.source), PartCounts()).add(part)
    told = {uid: {"tokens": part.tokens, "seconds": round(part.seconds, 2)} for uid, part in speeds.items()}
    made = {"made": counts.tasks, "missing": work.settings.tasks - counts.tasks, "passed_over": counts.passed}
    jobs.succeed(session, claim, made | {"speeds": told})
