"""The three trivial policies that any learned one must beat: they show whether the gold preference can be cheated."""

from collections.abc import Iterable, Sequence
from statistics import fmean

from app.starter import gold
from workers.simulate.measure import Answer, Answers, HeldOutPrompt, judge

_FINALISTS = 20


def empty(prompts: Sequence[HeldOutPrompt]) -> Answers:
    """Says nothing."""
    return judge("empty", prompts, {prompt.key: (_says(""),) for prompt in prompts})


def echo(prompts: Sequence[HeldOutPrompt]) -> Answers:
    """Repeats the last user turn."""
    return judge("echo", prompts, {prompt.key: (_says(prompt.messages[-1]["content"]),) for prompt in prompts})


def best_fixed(prompts: Sequence[HeldOutPrompt], texts: Iterable[str]) -> tuple[str, Answers]:
    """The one of `texts` that does best when it answers every prompt, and how it does.

    It is chosen on the very prompts it is measured on, so that it is as strong as such a policy can be; every twentieth
    prompt chooses the finalists.
    """

    def total(text: str, on: Sequence[HeldOutPrompt]) -> float:
        return fmean(gold.score(prompt.messages, text, "stop").total for prompt in on)

    candidates = sorted(set(texts))
    if not candidates:
        raise ValueError("no texts to choose the best fixed answer from; give the demonstrations' responses")
    finalists = sorted(candidates, key=lambda text: -total(text, prompts[::20]))[:_FINALISTS]
    best = max(finalists, key=lambda text: total(text, prompts))
    return best, judge("fixed", prompts, {prompt.key: (_says(best),) for prompt in prompts})


def _says(text: str) -> Answer:
    return Answer(text, "stop", len(text.split()) + 1)
