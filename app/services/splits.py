"""On which side of the splits a source's prompts are: by its name's hash, so that it is the same in every import."""

import hashlib

from app.models import Split

SHARES = {Split.VALID: 0.1, Split.TEST: 0.1}
"""Part of the sources that a split gets where rows name none; the rest trains."""


def split_of(source: str) -> Split:
    """The split of a source that names none."""
    point = int.from_bytes(hashlib.sha256(source.encode()).digest()[:8]) / 2**64
    for split, share in SHARES.items():
        if point < share:
            return split
        point -= share
    return Split.TRAIN


def own_source(fingerprint: bytes) -> str:
    """The source of a prompt that names none: itself."""
    return f"prompt-{fingerprint.hex()[:16]}"
