"""What the numbers of training mean, in one line each: shown on hover and focus wherever the number stands."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from app.web import texts
from app.web.texts import gettext as _


@dataclass(frozen=True)
class Metric:
    """How one number is named, explained and printed. `weight` orders curves: the lower the earlier."""

    label: str
    explanation: str
    digits: int = 3
    unit: str = ""
    weight: int = 50

    def show(self, value: object) -> str:
        """The value with its unit; a dash for none, text as it is."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            return "–" if value is None else str(value)
        if self.unit == "%":
            return texts.percent(value, 1)
        if value and abs(value) < 10**-self.digits:
            return f"{value:.2e}"
        shown = texts.number(value, 0 if isinstance(value, int) else self.digits)
        return f"{shown} {self.unit}" if self.unit else shown


METRICS = {
    "loss": Metric("Training loss", "What the optimiser lowers; it should fall and then flatten.", weight=1),
    "train_loss": Metric(
        "Loss on training data", "Mean negative log-likelihood per token of the demonstrations.", unit="nats"
    ),
    "valid_loss": Metric(
        "Held-out loss", "The same on demonstrations the model never trained on.", unit="nats", weight=2
    ),
    "valid_reward": Metric(
        "Held-out reward", "Mean score of its answers to held-out prompts by the reward model.", 2, weight=2
    ),
    "text_loss": Metric("Loss on text", "Mean negative log-likelihood per token of the pretraining text.", unit="nats"),
    "kept_epoch": Metric("Epoch kept", "The pass over the demonstrations whose weights were kept.", 0, weight=93),
    "kept_by": Metric(
        "Kept by", "What chose that epoch: the lowest loss, the highest reward, or its place.", weight=94
    ),
    "accuracy": Metric(
        "Held-out accuracy",
        "Share of people's comparisons on held-out prompts that the reward model orders as they did.",
        unit="%",
        weight=2,
    ),
    "accuracy_low": Metric("Accuracy, lower end", "Lower end of the 95 % interval, by prompt.", unit="%"),
    "accuracy_high": Metric("Accuracy, upper end", "Upper end of the 95 % interval, by prompt.", unit="%"),
    "train_accuracy": Metric(
        "Accuracy on training data", "The same on comparisons it learned from; far above held-out is overfit.", unit="%"
    ),
    "incumbent_accuracy": Metric(
        "Accuracy of the former model", "The reward model then in use, on the same held-out comparisons.", unit="%"
    ),
    "longer_wins": Metric(
        "Longer wins", "Accuracy of simply preferring the longer answer: a reward model must beat it.", unit="%"
    ),
    "noise_ceiling": Metric(
        "Noise ceiling", "The best accuracy possible, as far as people agree with one another.", unit="%"
    ),
    "heldout_prompts": Metric("Held-out prompts", "Prompts that the held-out accuracy is averaged over.", 0),
    "heldout_comparisons": Metric("Held-out comparisons", "Pairs on those prompts that are not tied.", 0),
    "reward_mean": Metric("Reward offset", "Subtracted from every score, so that demonstrations score 0 on average."),
    "score": Metric(
        "Score", "Mean score of the policy's answers by the reward model; rising is learning.", 2, weight=3
    ),
    "watch_score": Metric(
        "Score by the second reward model",
        "A reward model that the policy does not climb scores the same answers; falling while the score rises, it is fooled.",
        2,
        weight=3,
    ),
    "kl": Metric(
        "KL to the SFT model",
        "How far the policy has moved from the model it started as, summed over an answer.",
        2,
        unit="nats",
        weight=4,
    ),
    "length": Metric(
        "Answer length", "Mean tokens per answer; runaway length is a sign of a gamed reward.", 1, weight=5
    ),
    "entropy": Metric(
        "Entropy", "How undecided the policy is at each token; a collapse to 0 ends exploration.", unit="nats"
    ),
    "policy_loss": Metric("Policy loss", "Clipped surrogate loss of PPO; it hovers around 0."),
    "value_loss": Metric("Value loss", "Squared error of the value function's prediction of the return."),
    "explained_variance": Metric(
        "Explained variance", "How well the value function predicts the return; 1 is perfect."
    ),
    "clip_fraction": Metric(
        "Clipped share", "Share of tokens whose update PPO cut off; a few percent is usual.", unit="%"
    ),
    "approx_kl": Metric("KL per update", "How far one update moved the policy from the one that drew the samples."),
    "ptx_loss": Metric("Loss on pretraining text", "Of the text mixed into training, per token.", unit="nats"),
    "stopped": Metric("Stopped early", "Why the run ended before its last step.", weight=1),
    "kept_step": Metric("Kept from step", "The step whose policy was kept, the best before the run went too far.", 0),
    "ended": Metric("Ended", "Share of answers that end by themselves before the length limit.", unit="%", weight=6),
    "kl_coef": Metric("KL coefficient", "Weight of the KL penalty in the reward of each token (beta).", 4),
    "value_grad_norm": Metric("Value gradient norm", "The same of the value function's gradient.", weight=81),
    "lr": Metric("Learning rate", "Step size of the optimiser, on its schedule.", 4, weight=90),
    "grad_norm": Metric("Gradient norm", "Length of the gradient before clipping; spikes mean trouble.", weight=80),
    "steps": Metric("Steps", "Optimiser steps of the run.", 0, weight=95),
    "dropped": Metric("Left out", "Examples longer than the model's context, or empty.", 0, weight=96),
    "snapshot": Metric("Snapshot", "Identity of the data it learned from.", weight=99),
}
"""Every number the trainers report, by its name in `metrics.json` and in the live metrics."""


def metric(name: str) -> Metric:
    """The entry of one number, in the reader's language.

    `heldout_x` is x on held-out prompts, `x_before` x before training; a name unknown here is shown as it is.
    """
    if name in METRICS:
        known = METRICS[name]
        return replace(known, label=_(known.label), explanation=_(known.explanation))
    if (stem := name.removeprefix("heldout_")) != name:
        inner = metric(stem)
        return replace(inner, label=_("Held-out %(name)s", name=_lower(inner.label)), weight=10 + inner.weight)
    if (stem := name.removesuffix("_before")) != name:
        inner = metric(stem)
        return replace(inner, label=_("%(name)s before training", name=inner.label), weight=20 + inner.weight)
    return Metric(texts.words(name).capitalize(), _("Reported by the trainer under this name."), weight=70)


def sort_names(names: Iterable[str]) -> list[str]:
    """Names of numbers, the telling ones first."""
    return sorted(set(names), key=lambda name: (metric(name).weight, name))


def _lower(label: str) -> str:
    return label if label[1:2].isupper() else label[:1].lower() + label[1:]


def run_name(kind: str) -> str:
    """A stage of training as people call it."""
    return {"sft": _("SFT"), "reward": _("Reward model"), "ppo": _("PPO")}[kind]


def purpose(kind: str) -> str:
    """What a stage of training is for, in one line."""
    return {
        "sft": _("Fine-tunes the base model on people's demonstrations."),
        "reward": _("Learns from people's rankings to score an answer."),
        "ppo": _("Trains a policy to earn a higher score without straying far from the SFT model."),
    }[kind]
