"""Samplers: a checkpoint together with how it decodes, named by everything that shapes its answers."""

import hashlib
import json

from sqlalchemy.orm import Session

from app.models import Checkpoint, Project, Sampler
from app.queries import samplers as queries
from app.schemas.projects import SamplingSettings


def ensure_sampler(session: Session, project: Project, checkpoint: Checkpoint, decoding: SamplingSettings) -> Sampler:
    """The sampler that draws from `checkpoint` with this decoding; the same question gives the same row."""
    chosen = {
        "temperature": decoding.temperature,
        "top_p": decoding.top_p,
        "max_new_tokens": decoding.max_new_tokens,
    }
    return queries.get_or_insert_sampler(
        session,
        project.id,
        checkpoint_id=checkpoint.id,
        decoding=chosen,
        fingerprint=fingerprint(checkpoint_uid=str(checkpoint.uid), prefix="", decoding=chosen, best_of=1),
    )


def fingerprint(*, checkpoint_uid: str, prefix: str, decoding: dict[str, float | int], best_of: int) -> bytes:
    """sha256 over what decides an answer, in canonical JSON."""
    parts = {"checkpoint": checkpoint_uid, "prefix": prefix, "decoding": decoding, "best_of": best_of}
    return hashlib.sha256(json.dumps(parts, sort_keys=True, separators=(",", ":")).encode()).digest()
