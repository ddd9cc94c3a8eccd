"""Samplers: what answers a prompt together with how, named by everything that shapes its answers."""

import hashlib
import json
from dataclasses import dataclass

from sqlalchemy.orm import Session

from app.models import Checkpoint, Endpoint, Project, Sampler
from app.queries import samplers as queries
from app.schemas.projects import SamplingSettings


@dataclass(frozen=True)
class Recipe:
    """A source with how it is asked: a model of the registry or an endpoint, and which of several responses is given."""

    source: Checkpoint | Endpoint
    temperature: float
    top_p: float
    max_new_tokens: int
    prefix: str = ""
    best_of: int = 1
    reward: Checkpoint | None = None


def ensure_sampler(session: Session, project: Project, checkpoint: Checkpoint, decoding: SamplingSettings) -> Sampler:
    """The sampler that draws from `checkpoint` with this decoding; the same question gives the same row."""
    return ensure(session, project, Recipe(checkpoint, decoding.temperature, decoding.top_p, decoding.max_new_tokens))


def ensure(session: Session, project: Project, recipe: Recipe) -> Sampler:
    """The sampler of a recipe; the same recipe gives the same row. Raises ValueError for a best of n that nobody chooses."""
    if (recipe.best_of > 1) != (recipe.reward is not None):
        raise ValueError(
            f"best of {recipe.best_of} with reward {recipe.reward}; expected one exactly where n is above 1"
        )
    decoding = {
        "temperature": recipe.temperature,
        "top_p": recipe.top_p,
        "max_new_tokens": recipe.max_new_tokens,
    }
    source = recipe.source
    return queries.get_or_insert_sampler(
        session,
        project.id,
        {
            "checkpoint_id": source.id if isinstance(source, Checkpoint) else None,
            "endpoint_id": source.id if isinstance(source, Endpoint) else None,
            "prefix": recipe.prefix,
            "decoding": decoding,
            "best_of": recipe.best_of,
            "reward_id": recipe.reward.id if recipe.reward else None,
        },
        fingerprint=fingerprint(recipe, decoding),
    )


def fingerprint(recipe: Recipe, decoding: dict[str, float | int]) -> bytes:
    """sha256 over what decides an answer, in canonical JSON; what a recipe does without is not named in it."""
    kind = "checkpoint" if isinstance(recipe.source, Checkpoint) else "endpoint"
    parts = {
        kind: str(recipe.source.uid),
        "prefix": recipe.prefix,
        "decoding": decoding,
        "best_of": recipe.best_of,
    }
    if recipe.reward:
        parts["reward"] = str(recipe.reward.uid)
    return hashlib.sha256(json.dumps(parts, sort_keys=True, separators=(",", ":")).encode()).digest()
