"""The starter world: who lives in it, what is true there, and which pairs of words nobody may combine before the test.

Everything is invented and small on purpose: some 400 words that a one-million-parameter model can learn and a person can check
in seconds. It is not smaller, because a pair of words that never comes up among few is a rule to a model: it must meet so many
pairs that it copies words from a question instead of remembering which go together. No noun starts with a vowel, so that "a" is
always right.
"""

import hashlib
import re
from dataclasses import dataclass
from functools import cache


@dataclass(frozen=True)
class Animal:
    """A kind of animal: its place, colour, food and size (1 smallest to 4 largest)."""

    name: str
    home: str
    colour: str
    food: str
    size: int


@dataclass(frozen=True)
class Person:
    """Someone of this world: work, place and the pronoun used in stories."""

    name: str
    job: str
    home: str
    pronoun: str


def rows(table: str) -> list[list[str]]:
    """The words of each line of a table written as text."""
    return [line.split() for line in table.strip().splitlines()]


PLACES = {
    "lake": "by the lake",
    "wood": "in the wood",
    "farm": "on the farm",
    "sea": "by the sea",
    "hill": "on the hill",
    "garden": "in the garden",
    "village": "in the village",
    "mill": "at the mill",
    "market": "at the market",
    "bridge": "on the bridge",
}
"""A place and the phrase that puts somebody there. Animals live in the first six, people in the last four."""

ANIMALS = {
    row[0]: Animal(row[0], row[1], row[2], row[3], int(row[4]))
    for row in rows("""
        frog lake green flies 1
        duck lake brown bread 2
        swan lake white reeds 3
        newt lake yellow flies 1
        fox wood red berries 3
        bat wood black flies 1
        deer wood brown leaves 4
        bear wood black honey 4
        cow farm white grass 4
        hen farm brown corn 2
        goat farm grey leaves 3
        pig farm pink corn 3
        crab sea red shrimps 1
        seal sea grey fish 4
        gull sea white fish 2
        whale sea blue shrimps 4
        sheep hill white grass 3
        hare hill brown grass 2
        hawk hill grey mice 2
        wolf hill grey mice 3
        snail garden yellow leaves 1
        bee garden yellow honey 1
        cat garden black fish 2
        mole garden black berries 1
        heron lake grey fish 3
        toad lake brown flies 1
        badger wood grey honey 3
        jay wood blue berries 2
        horse farm brown grass 4
        turkey farm black corn 3
        shark sea grey fish 4
        squid sea pink shrimps 3
        lamb hill white grass 2
        pony hill brown leaves 4
        rabbit garden grey grass 2
        worm garden pink leaves 1
    """)
}

PEOPLE = {
    row[0]: Person(row[0], row[1], row[2], row[3])
    for row in rows("""
        Mara baker village she
        Tom farmer bridge he
        Ada doctor market she
        Ben fisher bridge he
        Lina painter mill she
        Otto miller mill he
        Nora teacher village she
        Finn singer market he
        Ida gardener bridge she
        Max tailor market he
        Rosa singer village she
        Paul baker market he
        Kim doctor mill she
        Sam painter bridge he
        Eva fisher village she
        Leo teacher mill he
        Mia farmer market she
        Hugo gardener village he
        Anna miller bridge she
        Jack tailor mill he
        Bella teacher market she
        Adam fisher village he
        Cora doctor bridge she
        Boris baker market he
        Dora tailor village she
        Carl baker bridge he
        Elsa teacher village she
        David teacher bridge he
        Fanny teacher bridge she
        Emil tailor bridge he
        Greta doctor market she
        Felix teacher market he
        Hanna farmer village she
        Gus gardener market he
        Irma singer bridge she
        Henry tailor village he
        Julia doctor mill she
        Igor tailor village he
        Karla fisher market she
        Jonas miller mill he
        Lucy fisher market she
        Kurt doctor village he
        Molly gardener mill she
        Louis teacher mill he
        Nina fisher mill she
        Marco doctor village he
        Olga teacher bridge she
        Nick miller mill he
        Polly doctor mill she
        Oscar doctor market he
        Rita doctor market she
        Peter painter market he
        Sara fisher bridge she
        Ralf farmer mill he
        Tina miller bridge she
        Simon painter market he
        Vera gardener village she
        Tim baker village he
        Wilma painter mill she
        Uwe miller village he
        Yara painter mill she
        Victor gardener village he
        Zoe tailor bridge she
        Walter tailor village he
        Clara farmer village she
        Yuri baker village he
        Emma singer market she
        Anton teacher mill he
        Flora miller bridge she
        Bruno singer mill he
        Heidi tailor village she
        Dirk gardener market he
    """)
}

GROUPS = {
    group: tuple(things)
    for group, *things in rows("""
        toys kite ball doll puzzle marble robot balloon puppet rocket teddy wagon hoop
        music drum flute bell harp piano trumpet guitar whistle banjo cello fiddle gong
        clothes hat coat scarf shirt cap belt glove sock dress skirt jacket vest
        kitchen cup spoon pot bowl pan fork plate jug kettle ladle sieve tray
        travel boat map bag cart tent raft rope trunk sled canoe ticket basket
        home lamp chair clock bed table desk shelf mirror carpet candle broom sofa
    """)
}
"""Every thing of this world belongs to one group."""

GROUP_PHRASES = {
    "toys": "toys",
    "music": "things for music",
    "clothes": "things to wear",
    "kitchen": "things for the kitchen",
    "travel": "things for a trip",
    "home": "things for the house",
}
THINGS = {thing: group for group, things in GROUPS.items() for thing in things}
COLOURS = ("red", "blue", "green", "yellow", "black", "white", "brown", "grey", "pink")
NUMBERS = {"two": 2, "three": 3, "four": 4}
ACTIVITIES = ("swim", "sing", "read", "walk", "sleep", "draw", "dance", "play", "fish", "cook")
"""What people here do with a free hour."""

CLASSES: dict[str, tuple[str, ...]] = {
    "name": tuple(PEOPLE),
    "animal": tuple(ANIMALS),
    "thing": tuple(THINGS),
    "colour": COLOURS,
    "place": tuple(PLACES),
    "number": tuple(NUMBERS),
    "group": tuple(GROUPS),
}
"""The word classes that templates have slots for."""

_CLASS_OF = {word: name for name, words in CLASSES.items() for word in words}
_HELD_OUT_CLASSES = {
    frozenset(pair)
    for pair in (
        ("name", "thing"),
        ("name", "animal"),
        ("name", "place"),
        ("animal", "thing"),
        ("animal",),
        ("animal", "place"),
        ("animal", "colour"),
        ("colour", "thing"),
        ("number", "thing"),
        ("number", "name"),
    )
}
HELD_OUT_PER_MILLE = 140
_WORD = re.compile(r"[A-Za-z]+")


def words_of(text: str) -> list[str]:
    """The words of a text, lower case, without punctuation; "Tom's" counts as "tom" and "s"."""
    return [word.lower() for word in _WORD.findall(text)]


@cache
def is_held_out(first: str, second: str) -> bool:
    """Whether two words may appear together in held-out prompts only.

    About one pair in seven of the listed classes, chosen by hash, so that it never changes. What must be told for the world to
    be known stays free: an animal with its own colour and home, animals of one home, a person with their own home.
    """
    if first == second or frozenset({_CLASS_OF.get(first, ""), _CLASS_OF.get(second, "")}) not in _HELD_OUT_CLASSES:
        return False
    low, high = sorted((first, second))
    for one, other in ((first, second), (second, first)):
        if one in ANIMALS:
            animal = ANIMALS[one]
            same_home = other in ANIMALS and ANIMALS[other].home == animal.home
            if same_home or other in (animal.home, animal.colour):
                return False
        if one in PEOPLE and PEOPLE[one].home == other:
            return False
    digest = hashlib.sha256(f"{low} {high}".encode()).digest()
    return int.from_bytes(digest[:4], "big") % 1000 < HELD_OUT_PER_MILLE


_NAMES = {name.lower(): name for name in PEOPLE}


def held_out_pairs(text: str) -> set[tuple[str, str]]:
    """All held-out pairs of words that stand together in `text`; a plural in -s counts as its singular."""
    content: set[str] = set()
    for raw in set(words_of(text)):
        word = _NAMES.get(raw, raw)
        for form in (word, word.removesuffix("s")):
            if form in _CLASS_OF:
                content.add(form)
    ordered = sorted(content)
    return {(one, other) for i, one in enumerate(ordered) for other in ordered[i + 1 :] if is_held_out(one, other)}
