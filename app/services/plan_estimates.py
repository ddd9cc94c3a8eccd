"""What a sampling plan will cost, before anything is drawn: tokens, time, money, and people's hours."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy.orm import Session

from app.models import Checkpoint, Endpoint, Project, Split
from app.queries import plans as queries
from app.queries.plans import Wanted
from app.schemas.plans import Order, Part, PlanCounts, PlanSettings
from app.services.plan_work import CANDIDATE_TEXTS, CANDIDATES, MOST_CANDIDATES

RECENT_PLANS = 20
"""Plans that a model's speed is looked for in."""

CHARACTERS_PER_TOKEN = 4.0
"""Of English text, roughly: all that can be said of an endpoint's tokens beforehand."""


@dataclass(frozen=True)
class PartEstimate:
    """What one part of the mix will draw. `mean` figures rest on the length of what the source gave so far; None before that."""

    part: Part
    name: str
    responses: int
    mean_tokens: float | None
    most_tokens: int
    seconds: float | None
    """At the speed measured last; None where none was, and for endpoints."""
    mean_money: float | None
    most_money: float | None
    """None for models of the registry and where no price was given."""


@dataclass(frozen=True)
class Estimate:
    """What the whole will take."""

    parts: Sequence[PartEstimate]
    prompts: Mapping[Split, int]
    """Prompts that match, by split."""
    wanted: Mapping[Split, int]
    """Tasks wanted, by split."""
    candidates: int
    """Prompts whose responses two reward models will score first."""
    candidate_responses: int
    """Responses to be drawn for them at most, where they have none yet."""
    judgements: int
    median_seconds: float | None
    """Middle active time of a ranking in this project."""

    @property
    def mean_tokens(self) -> float | None:
        """Tokens in all, as far as every part is known."""
        return _sum([part.mean_tokens for part in self.parts])

    @property
    def most_tokens(self) -> int:
        """Tokens in all where every response is as long as it may be."""
        return sum(part.most_tokens for part in self.parts)

    @property
    def seconds(self) -> float | None:
        """Time to draw, for the parts of the registry; None where the speed of one is not known yet."""
        return _sum([part.seconds for part in self.parts if part.part.kind == "checkpoint"])

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
        """The same where every response is as long as it may be."""
        return _sum([part.most_money for part in self.parts if part.part.kind == "endpoint"])

    @property
    def hours(self) -> float | None:
        """People's active time."""
        return None if self.median_seconds is None else self.judgements * self.median_seconds / 3600

    @property
    def short(self) -> Mapping[Split, int]:
        """Tasks of each split for which there is no prompt."""
        found = {split: wanted - self.prompts.get(split, 0) for split, wanted in self.wanted.items()}
        return {split: missing for split, missing in found.items() if missing > 0}


def _sum(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known and len(known) == len(values) else None


def estimate(
    session: Session, project: Project, settings: PlanSettings, sources: Mapping[UUID, Checkpoint | Endpoint]
) -> Estimate:
    """What a plan will take, by what was measured so far. Reads only; starts nothing."""
    wanted = Wanted(project.id, settings.pools, settings.categories)
    by_split: dict[Split, int] = {}
    for lane, count in settings.lanes().items():
        by_split[lane.split] = by_split.get(lane.split, 0) + count
    has_chosen_new = settings.order == Order.NEVER_RANKED and not settings.control_share
    characters = [queries.mean_prompt_characters(session, wanted, split) for split in by_split]
    prompt_tokens = max((value for value in characters if value), default=0.0) / CHARACTERS_PER_TOKEN
    speeds = _speeds(session, project)
    candidates = _count_candidates(settings)
    median_ms = queries.median_active_ms(session, project.id)
    return Estimate(
        parts=[
            _estimate_part(session, project, settings, part, sources[part.source], prompt_tokens, speeds)
            for part in settings.parts
        ],
        prompts={
            split: queries.count_matching(session, wanted, split, never_ranked=has_chosen_new) for split in by_split
        },
        wanted=by_split,
        candidates=candidates,
        candidate_responses=candidates * CANDIDATE_TEXTS,
        judgements=settings.tasks * settings.judgements_wanted,
        median_seconds=None if median_ms is None else median_ms / 1000,
    )


def _count_candidates(settings: PlanSettings) -> int:
    if settings.order != Order.DISAGREEMENT:
        return 0
    chosen = [count for lane, count in settings.lanes().items() if lane.stream == "chosen"]
    return sum(min(CANDIDATES * count, MOST_CANDIDATES) for count in chosen)


def _estimate_part(
    session: Session,
    project: Project,
    settings: PlanSettings,
    part: Part,
    source: Checkpoint | Endpoint,
    prompt_tokens: float,
    speeds: Mapping[str, float],
) -> PartEstimate:
    drawn = settings.tasks * part.responses * part.best_of
    is_checkpoint = isinstance(source, Checkpoint)
    length = queries.mean_length_tokens(
        session,
        project.id,
        checkpoint_id=source.id if is_checkpoint else None,
        endpoint_id=None if is_checkpoint else source.id,
    )
    mean = None if length is None else drawn * min(length, part.max_new_tokens)
    most = drawn * part.max_new_tokens
    speed = _speed(session, project, source, speeds) if isinstance(source, Checkpoint) else None
    price = None
    if isinstance(source, Endpoint) and source.price_in is not None and source.price_out is not None:
        price = (source.price_in, source.price_out)
    asked = drawn * (prompt_tokens + len(part.prefix) / CHARACTERS_PER_TOKEN)
    return PartEstimate(
        part=part,
        name=source.name,
        responses=drawn,
        mean_tokens=mean,
        most_tokens=most,
        seconds=mean / speed if mean is not None and speed else None,
        mean_money=(asked * price[0] + mean * price[1]) / 1e6 if price and mean is not None else None,
        most_money=(asked * price[0] + most * price[1]) / 1e6 if price else None,
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
