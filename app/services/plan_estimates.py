"""What a sampling plan will cost, before anything is drawn: tokens, time, money, and people's hours."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy.orm import Session

from app.models import Checkpoint, Endpoint, Project, Split, Stream
from app.queries import checkpoints as checkpoint_queries
from app.queries import plans as queries
from app.queries.plans import Wanted
from app.schemas.plans import Order, Part, PlanCounts, PlanSettings
from app.services.plan_work import CANDIDATE_TEXTS, CANDIDATE_TOKENS, CANDIDATES, MOST_CANDIDATES

RECENT_PLANS = 20
"""Plans that a model's speed is looked for in."""

CHARACTERS_PER_TOKEN = 4.0
"""Of English text, roughly: all that can be said of an endpoint's tokens beforehand."""

FEWEST_CHARACTERS_PER_TOKEN = 2.0
"""Of other languages and of code, for what it may cost at most."""


@dataclass(frozen=True)
class PartEstimate:
    """What one part of the mix will draw. `mean` figures rest on the length of what the source gave so far; None before that."""

    part: Part
    name: str
    responses: int
    mean_tokens: float | None
    most_tokens: int
    """Where every response is as long as it may be; of an endpoint with the repetitions and failures that are paid, too."""
    seconds: float | None
    """At the speed measured last; None where none was, and for endpoints."""
    mean_money: float | None
    most_money: float | None
    """None for models of the registry and where no price was given."""


@dataclass(frozen=True)
class Looks:
    """What looking at candidates takes, where two reward models choose: responses are drawn to those that have none."""

    prompts: int = 0
    responses: int = 0
    mean_tokens: float | None = 0.0
    most_tokens: int = 0
    seconds: float | None = 0.0
    """Without the scoring."""


@dataclass(frozen=True)
class Short:
    """Tasks of a split for which there are too few prompts."""

    split: Split
    is_never_ranked: bool
    """Whether the chosen ones are meant, of which only the prompts never ranked count."""
    have: int
    wanted: int


@dataclass(frozen=True)
class Estimate:
    """What the whole will take."""

    parts: Sequence[PartEstimate]
    short: Sequence[Short]
    looks: Looks
    judgements: int
    median_seconds: float | None
    """Middle active time of a ranking in this project."""

    @property
    def mean_tokens(self) -> float | None:
        """Tokens in all, as far as every part is known."""
        return _sum([self.looks.mean_tokens, *(part.mean_tokens for part in self.parts)])

    @property
    def most_tokens(self) -> int:
        """Tokens in all where every response is as long as it may be."""
        return self.looks.most_tokens + sum(part.most_tokens for part in self.parts)

    @property
    def seconds(self) -> float | None:
        """Time to draw, for the parts of the registry; None where the speed of one is not known yet."""
        drawn = [part.seconds for part in self.parts if part.part.kind == "checkpoint"]
        return _sum([*drawn, *([self.looks.seconds] if self.looks.prompts else [])])

    @property
    def is_paid(self) -> bool:
        """Whether an endpoint is asked."""
        return any(part.part.kind == "endpoint" for part in self.parts)

    @property
    def mean_money(self) -> float | None:
        """Money for the endpoints; None where a price or a length is not known."""
        return _sum([part.mean_money for part in self.parts if part.part.kind == "endpoint"])

    @property
    def most_money(self) -> float | None:
        """The same where every response is as long as it may be; the worker stops there."""
        return _sum([part.most_money for part in self.parts if part.part.kind == "endpoint"])

    @property
    def hours(self) -> float | None:
        """People's active time."""
        return None if self.median_seconds is None else self.judgements * self.median_seconds / 3600


def _sum(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known and len(known) == len(values) else None


def estimate(
    session: Session, project: Project, settings: PlanSettings, sources: Mapping[UUID, Checkpoint | Endpoint]
) -> Estimate:
    """What a plan will take, by what was measured so far. Reads only; starts nothing."""
    wanted = Wanted(project.id, settings.pools, settings.categories)
    splits = {lane.split for lane in settings.lanes()}
    characters = [queries.prompt_characters(session, wanted, split) for split in splits]
    lengths = (max(mean for mean, _ in characters), max(longest for _, longest in characters))
    speeds = _speeds(session, project)
    median_ms = queries.median_active_ms(session, project.id)
    return Estimate(
        parts=[
            _estimate_part(session, project, settings, part, sources[part.source], lengths, speeds)
            for part in settings.parts
        ],
        short=_list_short(session, wanted, settings),
        looks=_estimate_looks(session, project, settings, sources, speeds),
        judgements=settings.tasks * settings.judgements_wanted,
        median_seconds=None if median_ms is None else median_ms / 1000,
    )


def _list_short(session: Session, wanted: Wanted, settings: PlanSettings) -> list[Short]:
    """Where there are fewer prompts than tasks: of a split in all, and of the chosen ones where only some may be chosen."""
    tasks: dict[tuple[Split, bool], int] = {}
    for lane, count in settings.lanes().items():
        tasks[lane.split, False] = tasks.get((lane.split, False), 0) + count
        if lane.stream == Stream.CHOSEN and settings.order == Order.NEVER_RANKED:
            tasks[lane.split, True] = count
    found = [
        Short(split, is_new, queries.count_matching(session, wanted, split, never_ranked=is_new), count)
        for (split, is_new), count in tasks.items()
    ]
    return [short for short in found if short.have < short.wanted]


def _estimate_looks(
    session: Session,
    project: Project,
    settings: PlanSettings,
    sources: Mapping[UUID, Checkpoint | Endpoint],
    speeds: Mapping[str, float],
) -> Looks:
    if settings.order != Order.DISAGREEMENT:
        return Looks()
    chosen = [count for lane, count in settings.lanes().items() if lane.stream == Stream.CHOSEN]
    prompts = sum(min(CANDIDATES * count, MOST_CANDIDATES) for count in chosen)
    models = [source for part in settings.parts if isinstance(source := sources[part.source], Checkpoint)]
    writer = models[0] if models else checkpoint_queries.find_active_policy(session, project.id)
    longest = min(CANDIDATE_TOKENS, *(part.max_new_tokens for part in settings.parts))
    drawn = prompts * CANDIDATE_TEXTS
    length, speed = None, None
    if writer is not None:
        length = queries.mean_length_tokens(session, project.id, checkpoint_id=writer.id, endpoint_id=None)
        speed = _speed(session, project, writer, speeds)
    mean = None if length is None else drawn * min(length, longest)
    seconds = mean / speed if mean is not None and speed else None
    return Looks(prompts, drawn, mean, drawn * longest, seconds)


def _estimate_part(
    session: Session,
    project: Project,
    settings: PlanSettings,
    part: Part,
    source: Checkpoint | Endpoint,
    lengths: tuple[float, int],
    speeds: Mapping[str, float],
) -> PartEstimate:
    drawn = settings.tasks * part.drawn
    most_drawn = settings.most_responses(part)
    is_checkpoint = isinstance(source, Checkpoint)
    length = queries.mean_length_tokens(
        session,
        project.id,
        checkpoint_id=source.id if is_checkpoint else None,
        endpoint_id=None if is_checkpoint else source.id,
    )
    mean = None if length is None else drawn * min(length, part.max_new_tokens)
    most = most_drawn * part.max_new_tokens
    speed = _speed(session, project, source, speeds) if isinstance(source, Checkpoint) else None
    price = source.prices if isinstance(source, Endpoint) else None
    asked = drawn * (lengths[0] + len(part.prefix)) / CHARACTERS_PER_TOKEN
    most_asked = most_drawn * (lengths[1] + len(part.prefix)) / FEWEST_CHARACTERS_PER_TOKEN
    return PartEstimate(
        part=part,
        name=source.name,
        responses=drawn,
        mean_tokens=mean,
        most_tokens=most,
        seconds=mean / speed if mean is not None and speed else None,
        mean_money=(asked * price[0] + mean * price[1]) / 1e6 if price and mean is not None else None,
        most_money=(most_asked * price[0] + most * price[1]) / 1e6 if price else None,
    )


def _speeds(session: Session, project: Project) -> dict[str, float]:
    """Tokens a second by checkpoint, from the newest plans that drew from it."""
    found: dict[str, float] = {}
    for plan in queries.list_recent(session, project.id, limit=RECENT_PLANS):
        settings, counts = PlanSettings.model_validate(plan.settings), PlanCounts.from_json(plan.counts)
        for part, drawn in zip(settings.parts, counts.parts, strict=False):
            if part.kind == "checkpoint" and drawn.seconds and drawn.tokens:
                found.setdefault(str(part.source), drawn.tokens / drawn.seconds)
    return found


def _speed(session: Session, project: Project, source: Checkpoint, known: Mapping[str, float]) -> float | None:
    """Tokens a second of a model: from plans, else from the job in which it answered the prompts every model answers."""
    if str(source.uid) in known:
        return known[str(source.uid)]
    showcase = queries.find_showcase(session, project.id, source.id)
    result = (showcase.result if showcase else None) or {}
    return result["tokens"] / result["seconds"] if result.get("tokens") and result.get("seconds") else None
