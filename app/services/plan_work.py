"""A worker's part of a sampling plan: which prompts come next, and how what was drawn becomes tasks.

A prompt, its task and the counts are written in one transaction under the job's fence. So a worker that is killed loses what it
was drawing and nothing else, and the next goes on where the last tasks were stored.
"""

import random
import sys
from collections.abc import Collection, Mapping, Sequence
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

CANDIDATE_TOKENS = 256
"""Longest response drawn for a candidate that has none yet."""

SAME_WORKER = [kind for kind, queue in outbox.KINDS.items() if queue == outbox.KINDS[JOB]]
"""Jobs of the same worker, other plans among them: they take turns."""

HOPELESS_AFTER = 30
"""Prompts that must have been tried until a plan of which nearly nothing comes is given up."""

HOPELESS_SHARE = 0.1
"""Of the prompts tried, those that become a task at least in a plan that goes on."""


@dataclass(frozen=True)
class Voice:
    """A part of the mix, ready to be asked: its sampler, and the model's identity or the endpoint."""

    part: Part
    sampler: Sampler
    sha256: str | None
    target: Target | None
    reward_sha256: str | None
    prices: tuple[float, float] | None = None
    """Of a million tokens of prompts and of responses, where an endpoint has them."""


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

    def is_hopeless(self, counts: PlanCounts) -> bool:
        """Whether nearly everything is passed over, so that there is no use in going on."""
        tried = counts.tasks + counts.spoiled
        return tried >= HOPELESS_AFTER and counts.tasks < HOPELESS_SHARE * tried


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
        prices=source.prices if isinstance(source, Endpoint) else None,
    )


def must_wait(session: Session) -> bool:
    """Whether other work of this worker is queued: labellers wait for their queue to be filled, other plans for their turn."""
    return queries.has_waiting(session, SAME_WORKER)


def check_outside(session: Session, work: Work, prompt_ids: Collection[int]) -> set[int]:
    """Those of these prompts that may be sent to an endpoint now. Raises Conflict where one of the plan was removed meanwhile."""
    outside = endpoint_queries.list_endpoints(session, work.project.id)
    left = {row.uid for row in outside}
    for voice in work.voices:
        if voice.target is not None and voice.part.source not in left:
            raise Conflict(endpoints.removed(voice.target.name))
    return queries.list_fit(session, prompt_ids)


def next_candidates(session: Session, claim: Claim, work: Work, limit: int) -> list[Candidate]:
    """Candidates to be looked at, taken up on the first call; none where the order needs no look, or all are through."""
    jobs.heartbeat(session, claim)
    if work.judges is None:
        return []
    _take_up(session, work, _lapse(session, work))
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
    counts.spoiled += len(problems)
    plan.counts = counts.to_json()


def next_prompts(session: Session, claim: Claim, work: Work, limit: int) -> list[Chosen]:
    """Prompts to answer next, streams and splits mixed as they will be in the end; none where the plan is through.

    So that the queue does not tell which is which, and a plan that is stopped half-way has its shares.
    """
    jobs.heartbeat(session, claim)
    counts = _lapse(session, work)
    if work.is_hopeless(counts):
        return []
    if counts.tasks < work.settings.tasks:
        _check_budget(work, counts)
    _take_up(session, work, counts)
    turns: list[tuple[float, Chosen]] = []
    for lane, wanted in work.lanes.items():
        made = counts.made.get(lane.key, 0)
        waiting = queries.list_waiting(session, work.plan_id, lane.stream, lane.split, limit=min(wanted - made, limit))
        turns += [((made + at + 0.5) / wanted, Chosen(prompt, lane)) for at, prompt in enumerate(waiting)]
    turns.sort(key=lambda turn: turn[0])
    return [chosen for _, chosen in turns[:limit]]


def _lapse(session: Session, work: Work) -> PlanCounts:
    """Pass over what may no longer be taken, before anything of it is drawn, sent or scored; the counts then."""
    plan = queries.lock(session, work.project.id, work.plan_id)
    counts = PlanCounts.from_json(plan.counts)
    never_ranked = work.settings.order == Order.NEVER_RANKED
    if lapsed := queries.lapse(session, plan.id, never_ranked=never_ranked):
        counts.passed += lapsed
        plan.counts = counts.to_json()
    return counts


def _check_budget(work: Work, counts: PlanCounts) -> None:
    """Raise Conflict where endpoints have been paid what the plan was said to cost at most."""
    money = 0.0
    rest = f"{counts.tasks:,} of {work.settings.tasks:,} tasks are made; order the rest anew, and look at its cost."
    for voice, part in zip(work.voices, counts.parts, strict=False):
        if voice.target is None:
            continue
        most = work.settings.most_responses(voice.part)
        if part.requests + voice.part.drawn > most:
            raise Conflict(
                f"The endpoint {voice.target.name} was asked {part.requests:,} times, and the cost was shown for {most:,} "
                f"at most. {rest}"
            )
        if voice.prices:
            money += (part.tokens_in * voice.prices[0] + part.tokens * voice.prices[1]) / 1e6
    if counts.most_money is not None and money >= counts.most_money > 0:
        raise Conflict(
            f"The endpoints have cost {money:,.2f} by what they say they counted, and {counts.most_money:,.2f} at most was "
            f"shown. {rest}"
        )


def count_requests_left(session: Session, work: Work) -> list[int]:
    """How often the plan's cost lets each part of it ask its endpoint still; of a model of the registry as often as it likes."""
    counts = PlanCounts.from_json(queries.lock(session, work.project.id, work.plan_id).counts)
    parts = counts.parts or [PartCounts() for _ in work.voices]
    return [
        work.settings.most_responses(voice.part) - part.requests if voice.target else sys.maxsize
        for voice, part in zip(work.voices, parts, strict=True)
    ]


def _take_up(session: Session, work: Work, counts: PlanCounts) -> None:
    """Have enough prompts waiting in each lane. Those of the control stream first, while all prompts are still to be had."""
    for lane, wanted in sorted(work.lanes.items(), key=lambda item: item[0].stream != Stream.CONTROL):
        taken, waiting = queries.count_taken(session, work.plan_id, lane.stream, lane.split)
        missing = wanted - counts.made.get(lane.key, 0) - waiting
        is_chosen = lane.stream == Stream.CHOSEN
        if is_chosen and work.judges is not None:
            missing = 0 if taken else min(CANDIDATES * wanted, MOST_CANDIDATES)
        if not is_chosen and not taken and work.settings.order != Order.RANDOM:
            missing += _reserve(session, work, lane, wanted)
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


def _reserve(session: Session, work: Work, lane: Lane, wanted: int) -> int:
    """Control prompts to take up beyond those wanted, one of which replaces each that is passed over.

    Later there may be none left, or only such as the choice left over. A small pool has none to spare.
    """
    needed = 0
    for other, count in work.lanes.items():
        is_looked_at = other.stream == Stream.CHOSEN and work.judges is not None
        if other.split == lane.split:
            needed += min(CANDIDATES * count, MOST_CANDIDATES) if is_looked_at else count
    never_ranked = work.settings.order == Order.NEVER_RANKED
    free = queries.count_matching(session, work.wanted, lane.split, never_ranked=never_ranked, unknown_to=work.plan_id)
    return max(0, min(free - needed, wanted // 5 + 1))


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
        problem = one.problem or (None if prompt_id in active else queries.TAKEN_OUT)
        problems[prompt_id] = problem
        if problem:
            counts.passed += 1
            counts.spoiled += 1
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
    """The job has succeeded, with fewer tasks than wanted where prompts ran out or nearly all were passed over."""
    counts = PlanCounts.from_json(queries.lock(session, work.project.id, work.plan_id).counts)
    made = {"made": counts.tasks, "missing": work.settings.tasks - counts.tasks, "passed_over": counts.passed}
    jobs.succeed(session, claim, made)
