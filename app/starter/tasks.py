"""What can be asked in the starter world: a kind of task, its wording, and the way back from a text to the task.

A pattern is plain text with `{slots}` (a word of a class of `world.CLASSES`, or something derived from it) and `[one|other]`
choices. The same pattern writes a prompt (`expand`) and recognises it (`Kind.match`), so that the gold preference needs nothing
but the messages a labeller sees.
"""

import random
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from app.starter import world

Slots = Mapping[str, str]
"""What fills a pattern, e.g. {"name": "Tom", "animal": "fox", "place": "lake"}."""

WORDS: dict[str, tuple[str, ...]] = {
    **world.CLASSES,
    "loss": ("lost", "broke", "dropped"),
    "gain": ("found", "got", "mended"),
    "order": ("Give me", "Bring me", "Hand me", "Show me"),
    "event": ("walk", "picnic", "party"),
    "harm": ("break", "steal", "hide", "burn"),
    "sees": ("sees", "feeds", "finds", "draws", "hears"),
}
"""Every slot class; a digit after the class name ("animal2") asks for another word of the same class."""

PAST = {"sees": "saw", "feeds": "fed", "finds": "found", "draws": "drew", "hears": "heard"}
PLAIN = {"sees": "see", "feeds": "feed", "finds": "find", "draws": "draw", "hears": "hear"}
_SLOT = re.compile(r"\{(\w+)\}")
_CHOICE = re.compile(r"\[([^\[\]]*)\]")


def join(words: list[str]) -> str:
    """A list as people say it: "a frog, a duck and a swan"."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def fill(pattern: str, slots: Slots) -> str:
    """Put slots and what follows from them into a pattern whose choices are made, and start every sentence with a capital."""
    values = dict(slots) | derived(slots)
    text = _SLOT.sub(lambda found: values[found.group(1)], pattern)
    return re.sub(r"(^|[.!?] |\n)([a-z])", lambda found: found.group(1) + found.group(2).upper(), text)


def choose(pattern: str, rng: random.Random) -> str:
    """Make the choices of a pattern by `rng`."""
    return _CHOICE.sub(lambda found: rng.choice(found.group(1).split("|")), pattern)


def expand(pattern: str, slots: Slots, rng: random.Random) -> str:
    """Make the choices of a pattern by `rng` and fill its slots."""
    return fill(choose(pattern, rng), slots)


def derived(slots: Slots) -> dict[str, str]:
    """What is true of the slots' words in this world, as more slots: {animal_colour}, {name_job}, {winner}, {at_place}, ..."""
    values: dict[str, str] = {}
    for slot, word in slots.items():
        if slot.startswith("animal"):
            animal = world.ANIMALS[word]
            values |= {
                f"{slot}_colour": animal.colour,
                f"{slot}_home": animal.home,
                f"{slot}_at": world.PLACES[animal.home],
                f"{slot}_food": animal.food,
            }
        elif slot.startswith("name"):
            person = world.PEOPLE[word]
            values |= {f"{slot}_job": person.job, f"{slot}_at": world.PLACES[person.home], f"{slot}_he": person.pronoun}
        elif slot.startswith("place"):
            values[f"at_{slot}"] = world.PLACES[word]
        elif slot == "group":
            values["group_things"] = world.GROUP_PHRASES[word]
        elif slot == "order":
            values["order_low"] = word[0].lower() + word[1:]
        elif slot == "sees":
            values |= {"saw": PAST[word], "see": PLAIN[word]}
    if "animal" in slots and "animal2" in slots:
        one, other = world.ANIMALS[slots["animal"]], world.ANIMALS[slots["animal2"]]
        big, small = (one, other) if one.size >= other.size else (other, one)
        values |= {"winner": big.name, "loser": small.name}
    if "number" in slots and "thing" in slots:
        count = world.NUMBERS[slots["number"]]
        values |= {
            "repeated": ", ".join([slots["thing"]] * count),
            "once_more": " ".join([slots["thing"]] * (count + 1)),
        }
    return values


@dataclass(frozen=True)
class Kind:
    """One kind of task.

    `asks` are prompt patterns, `answers` full good responses, `bare` right but curt ones. `keys` are the words without which
    the answer misses the point, `needs` what a good answer has besides ("a|b": either will do; {slots} allowed).
    `items` names what a list may hold. `closed`: everything said must come from the prompt or the expected answer;
    `rivals` are the prompt's own words that would make it wrong. `question`: the answer may ask.
    `sentences` and `words` bound a concise answer. `rule` names a condition on the slots. `follows` are the kinds whose
    exchange may stand before this one in a conversation.
    """

    name: str
    category: str
    weight: float
    asks: tuple[str, ...]
    answers: tuple[str, ...]
    keys: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    bare: tuple[str, ...] = ()
    items: str = ""
    closed: bool = False
    rivals: tuple[str, ...] = ()
    question: bool = False
    sentences: tuple[int, int] = (1, 1)
    words: int = 12
    rule: str = ""
    follows: tuple[str, ...] = ()

    @cached_property
    def slot_names(self) -> tuple[str, ...]:
        """The slots that the prompt itself shows, in the order of the first pattern."""
        found = [
            slot for slot in _SLOT.findall(" ".join(self.asks)) if slot != "group_things" and not slot.endswith("_he")
        ]
        names = ["group" if slot == "group_things" else slot.removeprefix("at_") for slot in found]
        if "group_things" in " ".join(self.asks):
            names.append("group")
        return tuple(dict.fromkeys(names))

    @cached_property
    def _regexes(self) -> tuple[re.Pattern[str], ...]:
        return tuple(re.compile(_regex(ask)) for ask in self.asks)

    def match(self, text: str) -> dict[str, str] | None:
        """The slots of a prompt of this kind, or None where the text is no such prompt."""
        for regex in self._regexes:
            if found := regex.fullmatch(text.strip()):
                return {slot: _word(slot, value) for slot, value in found.groupdict().items()}
        return None

    def draw(self, rng: random.Random, words: Mapping[str, tuple[str, ...]] = WORDS) -> dict[str, str]:
        """Random slots of `words` that obey the kind's rule, different words for slots of one class."""
        while True:
            slots: dict[str, str] = {}
            for slot in self.slot_names:
                taken = set(slots.values())
                slots[slot] = rng.choice([word for word in words[slot.rstrip("2")] if word not in taken])
            if obeys(self.rule, slots):
                return slots


def obeys(rule: str, slots: Slots) -> bool:
    """Whether slots satisfy a kind's rule; the empty rule allows everything."""
    if rule == "sizes differ":
        return world.ANIMALS[slots["animal"]].size != world.ANIMALS[slots["animal2"]].size
    if rule == "wrong colour":
        return world.ANIMALS[slots["animal"]].colour != slots["colour"]
    if rule == "wrong home":
        return world.ANIMALS[slots["animal"]].home != slots["place"]
    if rule == "animal place":
        return any(animal.home == slots["place"] for animal in world.ANIMALS.values())
    return True


def allowed_items(kind: Kind, slots: Slots) -> tuple[str, ...]:
    """The words that a list answer of this kind may hold."""
    if kind.items == "animals of place":
        return tuple(animal.name for animal in world.ANIMALS.values() if animal.home == slots["place"])
    if kind.items == "things of group":
        return world.GROUPS[slots["group"]]
    if kind.items == "animals":
        return tuple(world.ANIMALS)
    if kind.items == "things":
        return tuple(world.THINGS)
    return world.ACTIVITIES if kind.items == "activities" else ()


def count_of(slots: Slots) -> int:
    """How many items a list answer should hold; two where the prompt names no number."""
    return world.NUMBERS[slots["number"]] if "number" in slots else 2


def _word(slot: str, value: str) -> str:
    """The class word behind a matched piece of text: a phrase back to its place or group."""
    if slot.startswith("place"):
        return value.rpartition(" ")[2]
    if slot == "group":
        return next(group for group, phrase in world.GROUP_PHRASES.items() if phrase == value)
    return value


def _regex(pattern: str) -> str:
    """A regular expression with one named group per slot; a slot that comes twice must hold the same word."""
    seen: set[str] = set()

    def group(slot: str) -> str:
        name = "group" if slot == "group_things" else slot.removeprefix("at_")
        if slot.endswith("_he"):
            return "(?:he|she|He|She)"
        if name in seen:
            return f"(?P={name})"
        seen.add(name)
        words: tuple[str, ...] = WORDS[name.rstrip("2")]
        if slot == "group_things":
            words = tuple(world.GROUP_PHRASES.values())
        elif slot.startswith("at_"):
            words = tuple(world.PLACES[word] for word in words)
        return f"(?P<{name}>{'|'.join(words)})"

    pieces = re.split(r"(\{\w+\}|\[[^\[\]]*\])", pattern)
    out = []
    for piece in pieces:
        if piece.startswith("{"):
            out.append(group(piece[1:-1]))
        elif piece.startswith("["):
            out.append(f"(?:{'|'.join(re.escape(choice) for choice in piece[1:-1].split('|'))})")
        else:
            out.append(re.escape(piece))
    return "".join(out)
