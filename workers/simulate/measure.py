"""What a round achieved, in numbers: the definitions of house.md §6 on held-out prompts, judged by the gold preference.

Every mean is taken per prompt first, then over prompts, so that no prompt counts more for having more answers or pairs; every
interval is a 95 % bootstrap over prompts (`app.statistics`).

*Gold win rate.* Every answer of one model meets every answer of the other to the same prompt; the higher gold total wins, equal
totals count ½.

*Reward-model accuracy.* Over the pairs of held-out prompts that a (noisy) labeller ordered: the share in which the reward model
scores the labeller's choice higher. The answers are those of every model judged so far, whose training answers it was fitted
to. Its *noise ceiling* is the share in which gold without noise agrees with the same labels (equal totals ½): what a perfect
judge would reach.
*Longer-wins* is the share in which the labeller chose the longer text (ties ½): what a judge of length alone would reach.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from statistics import fmean

from app import statistics
from app.starter import gold
from app.starter.gold import GoldScore
from app.statistics import Comparison, Estimate

Message = dict[str, str]
Said = tuple[str, str | None]
"""An answer's text and why it ended: the reward model tells one that was cut off from one that ended."""


@dataclass(frozen=True)
class HeldOutPrompt:
    """A prompt that no model was trained on."""

    key: str
    messages: tuple[Message, ...]
    category: str


@dataclass(frozen=True)
class Answer:
    """What a model answered. `kl` is Σ_t (log π − log π_ref) over its tokens, in nats, where a reference was given."""

    text: str
    finish_reason: str
    length_tokens: int
    kl: float | None = None


@dataclass(frozen=True)
class Answers:
    """A model's answers to the held-out prompts with their gold scores, both by the prompt's key."""

    name: str
    by_prompt: Mapping[str, tuple[Answer, ...]]
    gold: Mapping[str, tuple[GoldScore, ...]]


@dataclass(frozen=True)
class ModelNumbers:
    """One model on the held-out prompts."""

    gold: Estimate
    components: Mapping[str, float]
    by_category: Mapping[str, Estimate]
    length_tokens: float
    """Mean length of an answer, the end token included."""
    distinct: float
    """Share of different texts among a prompt's answers."""
    ended: float
    """Share of answers that ended by themselves."""


@dataclass(frozen=True)
class RewardNumbers:
    """A reward model against noisy labels on held-out prompts."""

    accuracy: Estimate
    noise_ceiling: Estimate
    longer_wins: Estimate
    pairs: int
    prompts: int


@dataclass(frozen=True)
class LabelledPair:
    """Two answers to one held-out prompt that a labeller put in an order."""

    prompt: str
    chosen: Said
    rejected: Said
    gold_margin: float
    """Gold total of the chosen less that of the rejected: negative where the labeller slipped."""


def judge(name: str, prompts: Iterable[HeldOutPrompt], by_prompt: Mapping[str, Sequence[Answer]]) -> Answers:
    """Gold-score a model's answers. Raises ValueError for a prompt without answers."""
    scores = {}
    for prompt in prompts:
        if not by_prompt.get(prompt.key):
            raise ValueError(f"{name} has no answer to held-out prompt {prompt.key}; expected at least one")
        scores[prompt.key] = tuple(
            gold.score(prompt.messages, answer.text, answer.finish_reason) for answer in by_prompt[prompt.key]
        )
    return Answers(name, {key: tuple(by_prompt[key]) for key in scores}, scores)


def win_rate(model: Answers, over: Answers) -> Estimate:
    """How often gold prefers an answer of `model` to one of `over`."""
    return statistics.win_rate(_totals(model), _totals(over))


def gold_total(answers: Answers, keys: Iterable[str] | None = None) -> Estimate:
    """Mean gold score, on all prompts or on those of `keys`."""
    totals = _totals(answers)
    return statistics.mean_over_prompts(totals if keys is None else {key: totals[key] for key in keys})


def kl(answers: Answers) -> Estimate:
    """Mean KL of the answers' model to its reference, in nats. Raises ValueError where no reference was given."""
    held = {key: [answer.kl for answer in of_prompt] for key, of_prompt in answers.by_prompt.items()}
    known = {key: [value for value in of_prompt if value is not None] for key, of_prompt in held.items()}
    if known != held:
        raise ValueError(f"the samples of {answers.name} carry no KL; draw them with --reference")
    return statistics.mean_over_prompts(known)


def describe(answers: Answers, prompts: Sequence[HeldOutPrompt]) -> ModelNumbers:
    """All numbers of one model."""
    return ModelNumbers(
        gold=gold_total(answers),
        components={name: _mean_score(answers, name) for name in next(iter(answers.gold.values()))[0].components},
        by_category={category: gold_total(answers, keys) for category, keys in by_category(prompts).items()},
        length_tokens=_mean(answers, lambda answer: float(answer.length_tokens)),
        distinct=fmean(len({a.text for a in given}) / len(given) for given in answers.by_prompt.values()),
        ended=_mean(answers, lambda answer: float(answer.finish_reason == "stop")),
    )


def change_by_category(model: Answers, baseline: Answers, prompts: Sequence[HeldOutPrompt]) -> dict[str, Estimate]:
    """Gold score of `model` less that of `baseline`, paired by prompt, for each category."""

    def change(key: str) -> list[float]:
        return [one.total - other.total for one, other in product(model.gold[key], baseline.gold[key])]

    return {
        category: statistics.mean_over_prompts({key: change(key) for key in keys})
        for category, keys in by_category(prompts).items()
    }


def by_category(prompts: Iterable[HeldOutPrompt]) -> dict[str, list[str]]:
    """Keys of the prompts of each category, categories by name."""
    keys: dict[str, list[str]] = {}
    for prompt in prompts:
        keys.setdefault(prompt.category, []).append(prompt.key)
    return dict(sorted(keys.items()))


def labelled_pairs(
    key: str, messages: Sequence[Message], texts: Sequence[Said], tiers: Sequence[int | None]
) -> list[LabelledPair]:
    """The pairs that a labeller's tiers order (1 best); texts come with their finish reason.

    An output that is not rankable is in no pair, and neither are two equal texts.
    """
    scores = [gold.score(messages, text, reason) for text, reason in texts]
    pairs = []
    for one, other in combinations(range(len(texts)), 2):
        first, second = tiers[one], tiers[other]
        if first is None or second is None or first == second or texts[one][0] == texts[other][0]:
            continue
        best, worst = (one, other) if first < second else (other, one)
        pairs.append(LabelledPair(key, texts[best], texts[worst], scores[best].total - scores[worst].total))
    return pairs


def comparisons(tiers: Sequence[int | None]) -> int:
    """Pairs of a judgement that are not tied (house.md §6); an output that is not rankable is in none."""
    ranked = [tier for tier in tiers if tier is not None]
    return sum(one != other for one, other in combinations(ranked, 2))


def reward_numbers(pairs: Sequence[LabelledPair], score: Callable[[str, Said], float]) -> RewardNumbers:
    """Accuracy of a reward model that gives `score(prompt key, answer)`, beside its noise ceiling and longer-wins."""
    if not pairs:
        raise ValueError("there is no labelled pair on a held-out prompt; at least one is needed for an accuracy")

    scored = [Comparison(p.prompt, score(p.prompt, p.chosen), score(p.prompt, p.rejected)) for p in pairs]
    return RewardNumbers(
        accuracy=statistics.accuracy(scored),
        noise_ceiling=statistics.accuracy(Comparison(p.prompt, p.gold_margin, 0.0) for p in pairs),
        longer_wins=statistics.accuracy(Comparison(p.prompt, len(p.chosen[0]), len(p.rejected[0])) for p in pairs),
        pairs=len(pairs),
        prompts=len({pair.prompt for pair in pairs}),
    )


def _totals(answers: Answers) -> dict[str, list[float]]:
    return {key: [score.total for score in scores] for key, scores in answers.gold.items()}


def _mean(answers: Answers, value: Callable[[Answer], float]) -> float:
    return fmean(fmean(map(value, of_prompt)) for of_prompt in answers.by_prompt.values())


def _mean_score(answers: Answers, component: str) -> float:
    return fmean(fmean(score.components[component] for score in scores) for scores in answers.gold.values())
