"""Divergence from the reference policy: its estimators, its place in PPO's reward, and the coefficient that weighs it."""

import math
from dataclasses import dataclass

from torch import Tensor


def k1(logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
    """(B, T) log pi - log pi_ref: unbiased for KL(pi || pi_ref) on samples of pi, single terms of either sign.

    http://joschu.net/blog/kl-approx.html
    """
    return logprobs - ref_logprobs


def sequence_kl(logprobs: Tensor, ref_logprobs: Tensor, mask: Tensor) -> Tensor:
    """(B,) nats: k1 summed over the True tokens of each response. Its mean over a policy's own samples is the KL we report."""
    return (k1(logprobs, ref_logprobs) * mask).sum(1)


def kl_rewards(scores: Tensor, logprobs: Tensor, ref_logprobs: Tensor, mask: Tensor, *, kl_coef: float) -> Tensor:
    """(B, T) reward of each token: -kl_coef * (log pi_phi - log pi_SFT), and the score of the response added at its last token.

    scores (B,), the others (B, T), each row with at least one True token; 0 where the mask is False. InstructGPT, Eq. 2 taken
    per token (section 3.5, "a per-token KL penalty from the SFT model at each token"). The last token is the end token where
    the response has one: the score belongs to the act of ending.
    """
    rewards = -kl_coef * k1(logprobs, ref_logprobs) * mask
    last = mask.sum(1, keepdim=True) - 1
    return rewards.scatter_add(1, last, scores[:, None].to(rewards.dtype))


def best_of_n_kl(n: int) -> float:
    """KL in nats of the best of n samples by any score without ties to a single sample: log n - (n - 1) / n.

    Where best-of-n stands on the axis that PPO is plotted against: Gao et al. 2022, after Stiennon et al. 2020, appendix G.3. An
    upper bound where scores tie. Raises ValueError for n below 1.
    """
    if n < 1:
        raise ValueError(f"n is {n}; the best of n needs at least 1 sample")
    return math.log(n) - (n - 1) / n


@dataclass
class FixedKL:
    """InstructGPT: the coefficient stays as it was set."""

    value: float

    def update(self, kl: float, episodes: int) -> None:
        """Nothing to adapt."""


@dataclass
class AdaptiveKL:
    """A proportional controller that steers the divergence to a target. Ziegler et al. 2019, section 2.2.

    `target` in nats per response; `horizon` in episodes: the smaller, the faster.
    """

    value: float
    target: float
    horizon: int

    def update(self, kl: float, episodes: int) -> None:
        """After `episodes` responses of mean divergence `kl`: value *= 1 + clip(kl / target - 1, ±0.2) * episodes / horizon."""
        error = min(0.2, max(-0.2, kl / self.target - 1))
        self.value *= 1 + error * episodes / self.horizon
