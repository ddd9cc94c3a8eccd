"""The prompts of the starter project: about 2,100 distinct ones by pseudonymous writers, some of several turns.

Held-out prompts (splits `valid` and `test`) each hold a pair of words that no training prompt, demonstration or base text ever
combines (`world.is_held_out`); training prompts hold none. A writer belongs to one split, and so do all turns of a conversation.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count

from app.starter import world
from app.starter.kinds import BY_NAME, CATEGORIES, KINDS
from app.starter.tasks import WORDS, Kind, Slots, allowed_items, count_of, expand, fill, join

SEED = 20220304
PROMPTS_PER_WRITER = 40
WRITERS = {"train": 37, "valid": 8, "test": 7}
MIX = (0.31, 0.14, 0.12, 0.09, 0.08, 0.05, 0.05, 0.05, 0.05, 0.06)
"""Share of each category, in the order of CATEGORIES: the paper's Table 1, small ones raised to where they can be measured."""

TRIES = 200
"""Draws after which another category is tried: a small world runs out of held-out pairs of some kinds."""
CAST = WORDS | {
    name: tuple(words)
    for name, *words in world.rows("""
        name Mara Tom Ada Ben Nora Finn Eva Leo Rosa Paul Lina Max
        animal frog duck swan fox bear cow hen goat crab whale hare wolf cat bee horse rabbit
        thing kite ball drum bell hat coat cup boat map lamp flute scarf bowl tent clock puzzle
        colour red blue green white black brown
        place lake wood farm sea market bridge garden village
        number two three
    """)
}
"""Who and what the prompts are about: part of the world, so that a few hundred judgements meet every word often enough."""
Message = dict[str, str]
"""One turn: {"role": "user" | "assistant", "content": text}."""


@dataclass(frozen=True)
class StarterPrompt:
    """A conversation up to and including a user's turn. `parent` is the key of the prompt one exchange earlier."""

    key: str
    messages: tuple[Message, ...]
    category: str
    split: str
    source: str
    parent: str | None = None
    kind: str = field(default="", compare=False)
    slots: Slots = field(default_factory=dict, compare=False, repr=False)


def make_prompts(seed: int = SEED) -> tuple[StarterPrompt, ...]:
    """All starter prompts, the same for the same seed, in an order in which every stretch mixes categories and writers."""
    rng = random.Random(f"prompts {seed}")
    seen: set[str] = set()
    drafts: list[list[StarterPrompt]] = []
    number = 0
    for split, writers in WRITERS.items():
        for _ in range(writers):
            number += 1
            written = 0
            while written < PROMPTS_PER_WRITER:
                turns = _conversation(rng, split, f"writer-{number:02d}", seen)
                drafts.append(turns)
                written += len(turns)
    rng.shuffle(drafts)
    return tuple(_numbered(drafts))


def answer(kind: Kind, slots: Slots, rng: random.Random, *, pattern: str | None = None) -> str:
    """A good response to a task; `pattern` chooses another wording than one of the kind's answers."""
    chosen = pattern if pattern is not None else rng.choice(kind.answers)
    if "{items}" in chosen:
        chosen = chosen.replace("{items}", list_of(kind, slots, rng))
    return expand(chosen, slots, rng)


def list_of(kind: Kind, slots: Slots, rng: random.Random, count: int | None = None) -> str:
    """A right list of `count` items (the number asked for by default), as people write it."""
    allowed = allowed_items(kind, slots)
    items = rng.sample(allowed, min(count if count is not None else count_of(slots), len(allowed)))
    return join(items if kind.items == "activities" else [f"a {item}" for item in items])


def draw_kind(rng: random.Random, category: str | None = None) -> Kind:
    """A kind by the category mix (unless the category is given), then by weight within its category."""
    category = category or rng.choices(CATEGORIES, MIX)[0]
    kinds = [kind for kind in KINDS if kind.category == category]
    return rng.choices(kinds, [kind.weight for kind in kinds])[0]


def _conversation(rng: random.Random, split: str, source: str, seen: set[str]) -> list[StarterPrompt]:
    """The turns of one new conversation (mostly one), each a prompt of its own; keys and parents are set later."""
    for attempt in count():
        if attempt % TRIES == 0:
            category = rng.choices(CATEGORIES, MIX)[0]
        chain = [draw_kind(rng, category)]
        while chain[0].follows:
            chain.insert(0, BY_NAME[rng.choice(chain[0].follows)])
        slots: dict[str, str] = {}
        messages: list[Message] = []
        turns: list[StarterPrompt] = []
        for kind in chain:
            slots = slots | {slot: word for slot, word in kind.draw(rng, CAST).items() if slot not in slots}
            messages = [*messages, {"role": "user", "content": expand(rng.choice(kind.asks), slots, rng)}]
            turns.append(StarterPrompt("", tuple(messages), kind.category, split, source, None, kind.name, dict(slots)))
            messages = [*messages, {"role": "assistant", "content": answer(kind, slots, rng)}]
        texts = [text_of(turn) for turn in turns]
        pairs = [world.held_out_pairs(text) for text in texts]
        fits = not pairs[-1] if split == "train" else all(pairs)
        if fits and not seen & set(texts) and len(set(slots.values())) == len(slots):
            seen |= set(texts)
            return turns
    raise AssertionError("the loop above ends by returning only")


def text_of(prompt: StarterPrompt) -> str:
    """All turns of a prompt as one text."""
    return "\n".join(message["content"] for message in prompt.messages)


def _numbered(drafts: list[list[StarterPrompt]]) -> Iterator[StarterPrompt]:
    number = 0
    for turns in drafts:
        parent: str | None = None
        for turn in turns:
            number += 1
            key = f"starter-{number:04d}"
            yield StarterPrompt(
                key, turn.messages, turn.category, turn.split, turn.source, parent, turn.kind, turn.slots
            )
            parent = key


__all__ = ["MIX", "SEED", "StarterPrompt", "answer", "fill", "list_of", "make_prompts", "text_of"]
