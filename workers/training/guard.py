"""When a PPO run ends before its time, and which policy it then keeps."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean, stdev

import torch
from torch import Tensor
from transformers import PreTrainedModel

from workers.training import lora


@dataclass(frozen=True)
class Report:
    """What a policy is worth on held-out prompts, one answer each, always from the same draws."""

    values: dict[str, float]
    """`heldout_score`, `heldout_kl` and the like, as they are shown; empty without held-out prompts."""
    seconds: list[float]
    """The second reward model's score of each answer, in the order of the prompts; empty where none watches."""


@dataclass
class Guard:
    """The best policy so far on held-out prompts, and whether the run has gone too far. Two rules end a run at a report:

    - *Divergence*: the held-out KL is above `kl_max`.
    - *Over-optimisation*, where a second reward model watches: at this report and each of the `patience` - 1 before it, the proxy
      (the score that is climbed) was above its value at the best report, and the second score below its value there by more
      than one standard error. The two are compared answer by answer, d_i = second score at the best - now, over the N held-out
      prompts: mean(d) > stdev(d) / sqrt(N).

    The best report is the one of the highest mean second score, or of the highest proxy where none watches; the earliest among
    equals, and only within `kl_max`. Where a second model watches, the report before training counts as the first. Without
    `kl_max` and without a second model nothing is remembered and nothing ends.
    """

    kl_max: float | None
    """Nats a response."""
    patience: int
    """Reports in a row."""
    is_watched: bool
    """Whether a second reward model scores the reports."""
    best: float = -math.inf
    """Mean second score, or proxy, at the best report."""
    proxy: float = -math.inf
    """Mean proxy at the best report."""
    seconds: list[float] = field(default_factory=list)
    """Second scores at the best report, answer by answer."""
    weights: list[Tensor] = field(default_factory=list)
    """The policy at the best report."""
    kept_step: int = 0
    """Iteration of the best report."""
    last_step: int = -1
    """Iteration of the last report: the one after training may repeat it."""
    falls: int = 0
    """Reports in a row that showed over-optimisation."""
    reason: str = ""
    """Why the run is over; empty while it goes on."""

    def begin(self, report: Report, policy: PreTrainedModel) -> None:
        """Where a second reward model watches, the policy before training is the best so far, whatever its KL."""
        if self.is_watched:
            self.take(0, report, policy)

    def take(self, step: int, report: Report, policy: PreTrainedModel) -> None:
        """Judge the report on `policy` after iteration `step`: remember it if it is the best, note a reason to stop."""
        if self.reason or step == self.last_step or (self.kl_max is None and not self.is_watched):
            return
        self.last_step = step
        if self.kl_max is not None and report.values["heldout_kl"] > self.kl_max:
            self.reason = f"held-out KL {report.values['heldout_kl']:.2f} nats passed kl_max {self.kl_max}"
            return
        proxy = report.values["heldout_score"]
        score = fmean(report.seconds) if self.is_watched else proxy
        if score > self.best:
            self.best, self.proxy, self.seconds = score, proxy, report.seconds
            self.kept_step, self.falls = step, 0
            self.weights = [weight.detach().clone() for weight in lora.learned(policy)]
        elif self.is_watched:
            fell, error = paired_fall(self.seconds, report.seconds)
            self.falls = self.falls + 1 if proxy > self.proxy and fell > error else 0
            if self.falls >= self.patience:
                self.reason = (
                    f"over-optimised: at {self.falls} reports in a row the score was above that of iteration {self.kept_step} "
                    f"(now {proxy:.3g}, then {self.proxy:.3g}) and the second reward model's below it by more than its standard "
                    f"error (now {score:.3g}, then {self.best:.3g}, error {error:.2g})"
                )

    @torch.no_grad()
    def restore(self, policy: PreTrainedModel) -> None:
        """Put the remembered weights into the policy; raises RuntimeError where no report was within `kl_max`."""
        if not self.weights:
            raise RuntimeError(
                "the divergence passed kl_max before the first held-out report; lower lr, or raise kl_coef or kl_max"
            )
        for parameter, weight in zip(lora.learned(policy), self.weights, strict=True):
            parameter.copy_(weight)


def paired_fall(before: Sequence[float], now: Sequence[float]) -> tuple[float, float]:
    """The mean of before - now over N pairs, and its standard error, stdev / sqrt(N): infinite for a single pair."""
    differences = [one - other for one, other in zip(before, now, strict=True)]
    error = stdev(differences) / math.sqrt(len(differences)) if len(differences) > 1 else math.inf
    return fmean(differences), error
