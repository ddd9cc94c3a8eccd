"""What a task asks of the person who does it, as tags: `skill:math`, which an admin grants; `content:violence`, which one
opts in to. A task goes to those who bring all of its tags.
"""

import re
from collections.abc import Iterable, Sequence
from enum import StrEnum

SKILL = "skill:"
CONTENT = "content:"


class Content(StrEnum):
    """The kinds of sensitive content, a closed list: people agree to each by its name (`templates/content/_words.html`)."""

    SEXUAL = "sexual"
    VIOLENCE = "violence"
    SELF_HARM = "self-harm"
    HATE = "hate"
    HARASSMENT = "harassment"
    OTHER = "other"


MOST_TAGS = 20
"""Tags of one prompt or one person."""

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")


def read_needs(tags: Iterable[object]) -> tuple[str, ...]:
    """Tags of a prompt, in order and each once. Raises ValueError naming the one that is none."""
    return _read(tags, (SKILL, CONTENT))


def read_skills(text: str) -> list[str]:
    """The skills of a list such as `math, french`, as tags. Raises ValueError naming the one that is none."""
    names = (name.strip().lower().removeprefix(SKILL) for name in text.replace("\n", ",").split(","))
    return list(_read((SKILL + name for name in names if name), (SKILL,)))


def name_tags(tags: Iterable[str], kind: str) -> list[str]:
    """The names of the tags of one kind: `math` of `skill:math`."""
    return [tag.removeprefix(kind) for tag in tags if tag.startswith(kind)]


def _read(tags: Iterable[object], kinds: Sequence[str]) -> tuple[str, ...]:
    read = dict.fromkeys(_read_tag(tag, kinds) for tag in tags)
    if len(read) > MOST_TAGS:
        raise ValueError(f"{len(read)} tags are too many; name {MOST_TAGS} at most")
    return tuple(read)


def _read_tag(tag: object, kinds: Sequence[str]) -> str:
    if isinstance(tag, str):
        kind = next((kind for kind in kinds if tag.startswith(kind)), None)
        name = tag.removeprefix(kind) if kind else ""
        if _NAME.fullmatch(name) and (kind == SKILL or name in set(Content)):
            return tag
        if kind == CONTENT:
            raise ValueError(f"{tag!r} is no kind of content; expected {', '.join(CONTENT + each for each in Content)}")
    expected = " or ".join(f"{kind}name" for kind in kinds)
    raise ValueError(f"{tag!r} is no tag; expected {expected}, the name in a to z, digits and hyphens, 40 at most")
