"""The gold preference: what a perfectly informed, patient person of the starter world would prefer.

For simulated labellers and tests only; nothing that learns or serves may import it. A pure function of the messages a labeller
sees and the response. Four components, each from 0 to 1:

    asked    did it do what was asked: the words that matter are there, the rest of a good answer too
    true     nothing said is false in this world or, where the prompt holds the answer, made up
    concise  no more words and sentences than the task needs
    ends     it ended by itself, with a full stop

    total = 0.94 * asked * (0.4 + 0.3 * true + 0.2 * concise + 0.1 * ends) + 0.03 * concise + 0.03 * ends,   0 if empty

Doing what was asked multiplies the rest: a short, true answer to another question is worth next to nothing.
"""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from app.starter import world
from app.starter.kinds import KINDS
from app.starter.prompts import Message
from app.starter.tasks import Kind, Slots, allowed_items, count_of, fill
from app.starter.world import words_of

CLEAR = 0.08
"""Two totals closer than this are equal to a labeller."""
VERBS = frozenset(
    words_of(
        """is was are has had does saw met heard found fed helped came gave ran went sang read took danced drew slept ate sat
        looked carried hid liked lost made bought began fell said laughed come bring thank like lives eats keeps could have"""
    )
)
_INSTRUCTIONS = frozenset(
    words_of(
        """write tell begin invite describe find happy sum rewrite make put list name give does which why what where who help
        say swap show hand bring"""
    )
)
_SENTENCE = re.compile(r"[^.!?\n]+[.!?]*")
_FACTS = (
    (re.compile(r"\bthe (\w+) is (\w+)"), "colour"),
    (re.compile(r"\bthe (\w+) lives \w+ the (\w+)"), "home"),
    (re.compile(r"\bthe (\w+) eats (\w+)"), "food"),
    (re.compile(r"\b(\w+) is an? (\w+)"), "job"),
)


@dataclass(frozen=True)
class GoldScore:
    """The gold preference of one response: the total from 0 to 1 and its named components."""

    total: float
    components: dict[str, float]


def score(prompt_messages: Sequence[Message], response_text: str, finish_reason: str | None = None) -> GoldScore:
    """Judge a response. `finish_reason` "length" says that it was cut; None where that is not known."""
    text = response_text.strip()
    if not words_of(text):
        return GoldScore(0.0, {"asked": 0.0, "true": 0.0, "concise": 0.0, "ends": 0.0})
    kind, slots = understand(prompt_messages)
    asked = _asked(kind, slots, prompt_messages, text)
    true = max(0.0, 1.0 - 0.5 * _falsehoods(kind, slots, prompt_messages, text))
    concise = _concise(kind, text)
    ends = float(finish_reason != "length" and text[-1] in ".!?")
    total = 0.94 * asked * (0.4 + 0.3 * true + 0.2 * concise + 0.1 * ends) + 0.03 * concise + 0.03 * ends
    return GoldScore(round(total, 6), {"asked": asked, "true": true, "concise": concise, "ends": ends})


def rank(
    prompt_messages: Sequence[Message],
    responses: Sequence[tuple[str, str | None]],
    noise: float = 0.0,
    rng: random.Random | None = None,
) -> list[int | None]:
    """Tiers (1 best, equal numbers tied, None not rankable) as a labeller gives them to (text, finish reason) pairs.

    A labeller puts the responses in order of their totals, ties those closer than CLEAR to the tier's first, and calls an empty
    one not rankable. `noise` is the probability of a slip: going down the order once, each response changes places with the
    better one above it, if that stands in another tier.
    """
    totals = [score(prompt_messages, text, reason).total for text, reason in responses]
    order = sorted((at for at, total in enumerate(totals) if total > 0), key=lambda at: -totals[at])
    tiers: list[int | None] = [None] * len(responses)
    tier, top = 0, float("inf")
    for at in order:
        if top - totals[at] >= CLEAR:
            tier, top = tier + 1, totals[at]
        tiers[at] = tier
    if noise and rng is not None:
        for above, below in pairwise(order):
            if tiers[above] != tiers[below] and rng.random() < noise:
                tiers[above], tiers[below] = tiers[below], tiers[above]
    return tiers


def quality(total: float) -> int:
    """The 1-7 quality of a response (1 useless, 7 can hardly be improved) from its total."""
    return 1 + round(6 * total)


def understand(messages: Sequence[Message]) -> tuple[Kind | None, Slots]:
    """What the last turn asks for, its slots filled from earlier turns too; no kind for a prompt of another world."""
    users = [message["content"] for message in messages if message["role"] == "user"]
    slots: dict[str, str] = {}
    kind: Kind | None = None
    for text in users:
        kind = None
        for candidate in KINDS:
            if (found := candidate.match(text)) is not None:
                kind = candidate
                slots |= found
                break
    return kind, slots


def _asked(kind: Kind | None, slots: Slots, messages: Sequence[Message], text: str) -> float:
    """Share of what the task asks for: all keys or a fraction of them, then what makes the answer whole."""
    sentences = _SENTENCE.findall(text)
    if _is_instruction(sentences[0], kind) or _repeats(messages[-1]["content"], sentences):
        return 0.0
    if kind is None:
        about = _content(words_of(messages[-1]["content"]))
        return 0.5 * (len(about & _content(words_of(text))) / len(about) if about else 1.0)
    keys = [_has(key, slots, text) for key in kind.keys]
    value = sum(keys) / len(keys) if keys else 1.0
    if kind.items:
        value *= _list_share(kind, slots, text)
    needs = [_has(need, slots, text) for need in kind.needs]
    if needs:
        value *= 0.6 + 0.4 * sum(needs) / len(needs)
    if any(_is_instruction(sentence, kind) for sentence in sentences[1:]):
        value *= 0.5
    return value if _reads_well(text) else 0.7 * value


def _has(need: str, slots: Slots, text: str) -> bool:
    """Whether the text meets a need: one of its alternatives stands in it word for word, or a condition named with # holds."""
    words = words_of(text)
    if need == "#verb":
        return bool(VERBS & set(words))
    if need == "#two":
        return len(_SENTENCE.findall(text)) >= 2
    if need == "#asks":
        return text.rstrip().endswith("?")
    if need == "#winner":
        named = [word for word in words if word in world.ANIMALS]
        return named[:1] == [fill("{winner}", slots).lower()]
    if need == "#not more":
        return f" {fill('{once_more}', slots).lower()} " not in f" {' '.join(words)} "
    line = f" {' '.join(words)} "
    return any(f" {' '.join(words_of(fill(choice, slots)))} " in line for choice in need.split("|"))


def _list_share(kind: Kind, slots: Slots, text: str) -> float:
    """1 for exactly as many right, different items as asked for; less for missing, wrong, doubled and surplus ones."""
    wanted = count_of(slots)
    pool = world.ACTIVITIES if kind.items == "activities" else (*world.ANIMALS, *world.THINGS)
    named = [word for word in (_singular(word) for word in words_of(text)) if word in pool]
    right = len(set(named) & set(allowed_items(kind, slots)))
    return min(right, wanted) / max(wanted, len(named))


def _falsehoods(kind: Kind | None, slots: Slots, messages: Sequence[Message], text: str) -> int:
    """Statements against the world's facts, wrong alternatives, and in closed tasks words from nowhere."""
    low = text.lower()
    count = sum(_is_false(claim[1], claim[2], what) for regex, what in _FACTS for claim in regex.finditer(low))
    if kind is None:
        return count
    count += sum(_has(rival, slots, text) for rival in kind.rivals)
    if kind.items:
        allowed = set(allowed_items(kind, slots))
        pool = set() if kind.items == "activities" else {*world.ANIMALS, *world.THINGS}
        count += len({_singular(word) for word in words_of(text)} & pool - allowed)
    if kind.closed:
        expected = " ".join(fill(re.sub(r"\[[^\]]*\]", "", pattern), slots) for pattern in kind.answers)
        known = " ".join([expected, *(message["content"] for message in messages)])
        count += len(_content(words_of(text)) - _content(words_of(known)))
    return count


def _is_false(subject: str, value: str, what: str) -> bool:
    """Whether a claim of the form "the fox is green" contradicts the world; claims about unknown subjects or values do not."""
    if what == "job":
        person = world.PEOPLE.get(subject.capitalize())
        return person is not None and value in _JOBS and person.job != value
    animal = world.ANIMALS.get(subject)
    if animal is None:
        return False
    if what == "colour":
        return value in world.COLOURS and animal.colour != value
    return animal.home != value if what == "home" else animal.food != value


def _concise(kind: Kind | None, text: str) -> float:
    """1 up to the task's length, falling to 0 at twice as many words; every sentence too many costs a half."""
    words, limit = len(words_of(text)), kind.words if kind else 20
    sentences, most = len(_SENTENCE.findall(text)), kind.sentences[1] if kind else 3
    return max(0.0, 1.0 - max(0, words - limit) / limit - max(0, sentences - most) / 2)


def _is_instruction(sentence: str, kind: Kind | None) -> bool:
    """Whether a sentence asks instead of answering."""
    asks = sentence.rstrip().endswith("?") and not (kind is not None and kind.question)
    first = words_of(sentence)[:1]
    opens = bool(first) and first[0] in _INSTRUCTIONS and (kind is None or not kind.question)
    return asks or (opens and ":" in sentence) or (opens and first[0] not in ("happy", "does"))


def _repeats(prompt: str, sentences: Sequence[str]) -> bool:
    """Whether a whole sentence of the prompt comes back word for word."""
    asked = {tuple(words) for sentence in _SENTENCE.findall(prompt) if len(words := words_of(sentence)) >= 3}
    return any(tuple(words_of(sentence)) in asked for sentence in sentences)


def _reads_well(text: str) -> bool:
    """Begins with a capital letter and stammers no word; "Drum, drum." is no stammer, someone may have asked for it."""
    for words in map(words_of, _SENTENCE.findall(text)):
        if any(one == other for one, other in pairwise(words) if one not in world.THINGS):
            return False
    return text[0].isupper()


def _content(words: Sequence[str]) -> set[str]:
    """The words that name something of this world."""
    return {form for word in words if (form := _singular(word)) in _CONTENT}


def _singular(word: str) -> str:
    return word if word in _CONTENT else word.removesuffix("s")


_JOBS = frozenset(person.job for person in world.PEOPLE.values())
_CONTENT = (
    frozenset(word.lower() for name in ("name", "animal", "thing", "colour", "place") for word in world.CLASSES[name])
    | _JOBS
    | frozenset(animal.food for animal in world.ANIMALS.values())
)
