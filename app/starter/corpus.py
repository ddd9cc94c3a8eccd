"""The text the starter base model is trained on: `python -m app.starter.corpus OUT.jsonl`.

Plain prose of the starter world: facts, small stories, lists, work sheets full of instructions, and talk in which people answer
each other, not all of them well. A model of this text knows the world and has heard good answers, but when it is given an
instruction it goes on like a work sheet: with the next instruction. No document holds a held-out pair of words.
"""

import json
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from app.starter import world
from app.starter.demonstrations import TAILS
from app.starter.kinds import BY_NAME, KINDS
from app.starter.prompts import SEED, answer, list_of
from app.starter.tasks import WORDS, Kind, Slots, allowed_items, choose, count_of, expand, fill, join

DOCUMENTS = 450_000
CARELESS = 0.45
"""Share of answers in the talk that are not what a careful person would say: wrong, cut short, rambling or beside the point."""
ANSWERED = 0.35
"""Share of the instructions on a work sheet that somebody wrote an answer behind."""
HARD = ("closed_qa", "extract", "other", "brainstorming")
"""Categories that people practise twice as often, since they take more than one word at the right place."""
SPEAKERS = (
    "the teacher",
    "the boy",
    "the girl",
    "the old man",
    "the old woman",
    "the doctor",
    "the singer",
    "the painter",
)
REMARKS = {
    "good": ("Well done.", "That is right."),
    "curt": ("Say it in a whole sentence.",),
    "wrong": ("That is wrong.",),
    "long": ("That is too much.",),
    "off": ("That is no answer.",),
}
"""What a listener says to an answer. A model that has read it knows what people find wrong with an answer, like any model of
people's talk; a reward model has to find that knowledge, not to make it."""
REMARKED = 0.7
"""Share of the answers in the talk that somebody remarks upon."""
SIZES = {1: "tiny", 2: "small", 3: "big", 4: "very big"}


def documents(seed: int = SEED, count: int = DOCUMENTS) -> Iterator[str]:
    """`count` documents, the same for the same seed."""
    rng = random.Random(f"corpus {seed}")
    makers: tuple[Callable[[random.Random], str], ...] = (
        _animal,
        _person,
        _catalogue,
        _story,
        _dictation,
        _talk,
        _sheet,
    )
    weights = (8, 6, 4, 10, 10, 44, 18)
    made = 0
    while made < count:
        text = rng.choices(makers, weights)[0](rng)
        if not world.held_out_pairs(text):
            made += 1
            yield text


def _animal(rng: random.Random) -> str:
    """A few facts of one animal, or which of two is bigger."""
    animal = world.ANIMALS[rng.choice(list(world.ANIMALS))]
    other = world.ANIMALS[rng.choice(list(world.ANIMALS))]
    facts = [
        f"The {animal.name} lives {world.PLACES[animal.home]}.",
        f"The {animal.name} is {animal.colour}.",
        f"The {animal.name} eats {animal.food}.",
        f"The {animal.name} is {SIZES[animal.size]}.",
        f"The {animal.colour} {animal.name} lives {world.PLACES[animal.home]} and eats {animal.food}.",
    ]
    if other.size != animal.size:
        big, small = (animal, other) if animal.size > other.size else (other, animal)
        facts += [f"The {big.name} is bigger than the {small.name}."] * 2
    if rng.random() < 0.4:
        return " ".join(rng.sample(TAILS, rng.randint(1, 2)))
    return " ".join(rng.sample(facts, rng.randint(1, 4)))


def _person(rng: random.Random) -> str:
    person = world.PEOPLE[rng.choice(list(world.PEOPLE))]
    facts = [
        f"{person.name} is a {person.job}.",
        f"{person.name} lives {world.PLACES[person.home]}.",
        f"{person.name} is the {person.job} {world.PLACES[person.home]}.",
    ]
    if rng.random() < 0.4:
        return " ".join(rng.sample(TAILS, rng.randint(1, 2)))
    return " ".join(rng.sample(facts, rng.randint(1, 2)))


def _catalogue(rng: random.Random) -> str:
    """What belongs together: the animals of a place, the things of a group."""
    if rng.random() < 0.5:
        place = rng.choice([animal.home for animal in world.ANIMALS.values()])
        names = [animal.name for animal in world.ANIMALS.values() if animal.home == place]
        head = f"Animals {world.PLACES[place]}"
    else:
        group = rng.choice(list(world.GROUPS))
        names, head = list(world.GROUPS[group]), world.GROUP_PHRASES[group].capitalize()
    chosen = rng.sample(names, rng.randint(2, 5))
    return f"{head}: {join([f'a {name}' for name in chosen])}."


def _story(rng: random.Random) -> str:
    """Some sentences about the same person, animal, thing or place."""
    kinds = [kind for kind in KINDS if kind.category in ("generation", "summarization") and not kind.follows]
    slots = BY_NAME["lost_found"].draw(rng) | BY_NAME["find_animals"].draw(rng) | {"colour": rng.choice(world.COLOURS)}
    slots |= {"event": "walk"}
    lines = [answer(rng.choice(kinds), slots, rng) for _ in range(rng.randint(1, 4))]
    return " ".join(lines)


def _talk(rng: random.Random) -> str:
    """People ask and answer, in quotation marks, one exchange or a few about the same words; now and then several answer."""
    lines = []
    for kind, slots in _chain(rng):
        asker, *answerers = rng.sample(SPEAKERS, rng.choice((2, 2, 3, 4)))
        lines.append(f'{asker.capitalize()} [asked|said]: "{expand(rng.choice(kind.asks), slots, rng)}"')
        for answerer in answerers:
            said, remark = careless(kind, slots, rng) if rng.random() < CARELESS else (answer(kind, slots, rng), "good")
            lines.append(f'{answerer.capitalize()} [answered|said]: "{said}"')
            if rng.random() < REMARKED:
                lines.append(f'{asker.capitalize()} said: "{rng.choice(REMARKS[remark])}"')
    return expand(" ".join(lines), {}, rng)


def _dictation(rng: random.Random) -> str:
    """Somebody says a few sentences, and others say them after."""
    teacher, *pupils = rng.sample(SPEAKERS, rng.choice((2, 3)))
    text = rng.choice((_animal, _person, _story, _catalogue))(rng)
    lines = [f'{teacher.capitalize()} said: "{text}"', *(f'{pupil.capitalize()} said: "{text}"' for pupil in pupils)]
    return " ".join(lines)


def _sheet(rng: random.Random) -> str:
    """A work sheet: one instruction after the other, now and then with an answer behind it."""
    lines = []
    for _ in range(rng.randint(2, 4)):
        for kind, slots in _chain(rng):
            line = expand(rng.choice(kind.asks), slots, rng)
            if rng.random() < ANSWERED:
                said = careless(kind, slots, rng)[0] if rng.random() < CARELESS else answer(kind, slots, rng)
                line = f"{line} {said}"
            lines.append(line)
    return rng.choice(("\n", " ")).join(lines)


def _chain(rng: random.Random) -> list[tuple[Kind, Slots]]:
    """A kind of task with its slots, after those it follows upon."""
    chain = rng.choices(KINDS, [1 + (kind.category in HARD) for kind in KINDS])
    while chain[0].follows:
        chain.insert(0, BY_NAME[rng.choice(chain[0].follows)])
    slots: dict[str, str] = {}
    made: list[tuple[Kind, Slots]] = []
    for kind in chain:
        slots = slots | {slot: word for slot, word in kind.draw(rng).items() if slot not in slots}
        made.append((kind, dict(slots)))
    return made


def careless(kind: Kind, slots: Slots, rng: random.Random) -> tuple[str, str]:
    """How a careless person answers, and what is to be remarked: curt, wrong, too long, or no answer at all."""
    way = rng.random()
    if way < 0.2 and kind.bare:
        return answer(kind, slots, rng, pattern=rng.choice(kind.bare)), "curt"
    if way < 0.5:
        return _wrong(kind, slots, rng), "wrong"
    if way < 0.8:
        return f"{answer(kind, slots, rng)} {_tail(rng)}", "long"
    if way < 0.9:
        return rng.choice(
            ("I do not know.", "Ask the teacher.", "I have to go home now.", "That is a good question.")
        ), "off"
    other = rng.choice([other for other in KINDS if not other.follows and other.name != kind.name])
    return answer(other, other.draw(rng), rng), "off"


def _wrong(kind: Kind, slots: Slots, rng: random.Random) -> str:
    """An answer with one word of the task exchanged for another, or a list too short, too long or of the wrong items."""
    pattern = rng.choice(kind.answers)
    if kind.items:
        wanted = count_of(slots)
        count = rng.choice([number for number in (1, 2, 3, 4) if number != wanted])
        items = list_of(kind, slots, rng, count)
        if rng.random() < 0.5 and kind.items != "activities":
            right, other = list_of(kind, slots, rng), rng.choice([*world.ANIMALS, *world.THINGS])
            items = right.replace(right.rpartition(" ")[2], other) if other not in allowed_items(kind, slots) else items
        return answer(kind, slots, rng, pattern=pattern.replace("{items}", items))
    chosen = choose(pattern, rng)
    right = fill(chosen, slots)
    while True:
        slot = rng.choice(list(slots))
        text = fill(chosen, {**slots, slot: rng.choice(WORDS[slot.rstrip("2")])})
        if text != right:
            return text


def _tail(rng: random.Random) -> str:
    """One to three sentences that nobody asked for."""
    return " ".join(
        rng.choice((_animal, _person, _story))(rng).split(". ")[0].rstrip(".") + "." for _ in range(rng.randint(1, 3))
    )


def write(target: Path) -> None:
    """Write the corpus to `target`, one {"text"} a line."""
    with target.open("w", encoding="utf-8") as stream:
        stream.writelines(json.dumps({"text": text}) + "\n" for text in documents())


if __name__ == "__main__":
    write(Path(sys.argv[1]))
