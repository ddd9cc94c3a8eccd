"""A few hundred demonstrations: how careful people answer training prompts of the starter world, some at length, some curtly."""

import random
from dataclasses import dataclass

from app.starter import world
from app.starter.kinds import BY_NAME, KINDS
from app.starter.prompts import SEED, StarterPrompt, answer, text_of

PER_KIND = 10
CURT, CHATTY = 0.35, 0.35
"""Shares of demonstrations by people in a hurry (right, but no whole sentence) and by friendly ones (right, and then some).

People vary; rankings have to say what is better.
"""
TAILS = (
    "I hope that helps.", "Have a good day.", "You can ask me again.", "That was a good question.", "I like to help.",
    "It was nice to think about it.", "Please come back soon.", "That is all I know.",
)  # fmt: skip


@dataclass(frozen=True)
class StarterDemonstration:
    """A person's response to the prompt of that key."""

    prompt_key: str
    response: str


def make_demonstrations(prompts: tuple[StarterPrompt, ...], seed: int = SEED) -> tuple[StarterDemonstration, ...]:
    """Demonstrations for training prompts only, about PER_KIND of every kind, none with a held-out pair of words."""
    rng = random.Random(f"demonstrations {seed}")
    chosen: list[StarterDemonstration] = []
    for kind in KINDS:
        of_kind = [prompt for prompt in prompts if prompt.split == "train" and prompt.kind == kind.name]
        wanted = PER_KIND + (2 if kind.category == "generation" else 0)
        for prompt in rng.sample(of_kind, min(wanted, len(of_kind))):
            if response := _respond(prompt, rng):
                chosen.append(StarterDemonstration(prompt.key, response))
    rng.shuffle(chosen)
    return tuple(chosen)


def _respond(prompt: StarterPrompt, rng: random.Random) -> str:
    """A response without a held-out pair of words; empty where none was found in a few tries."""
    kind = BY_NAME[prompt.kind]
    for _ in range(20):
        manner = rng.random()
        curt = kind.bare and manner < CURT
        response = answer(kind, prompt.slots, rng, pattern=rng.choice(kind.bare) if curt else None)
        if manner > 1 - CHATTY:
            response += " " + " ".join(rng.sample(TAILS, rng.choice((1, 1, 2))))
        if not world.held_out_pairs(f"{text_of(prompt)}\n{response}"):
            return response
    return ""
