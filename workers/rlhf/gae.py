"""Advantages and returns from per-token rewards and values, and how well the values foresaw them."""

import torch
from torch import Tensor

from workers.rlhf.masked import masked_variance


def advantages_and_returns(
    rewards: Tensor, values: Tensor, mask: Tensor, *, gamma: float, lam: float
) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimation: (B, T) advantages and (B, T) returns = advantages + values, both 0 outside the mask.

        delta_t = r_t + gamma V_{t+1} - V_t,    A_t = delta_t + gamma lam A_{t+1}         Schulman et al. 2016, Eq. 16

    rewards, values, mask (B, T); values[t] is of the state before token t. True tokens lie flush left: a response ends its
    episode, so V and A are 0 behind its last token.
    """
    rewards, values = rewards * mask, values * mask
    following = torch.cat([values[:, 1:], torch.zeros_like(values[:, :1])], 1)
    deltas = rewards + gamma * following - values
    advantages = torch.zeros_like(rewards)
    last = torch.zeros_like(rewards[:, 0])
    for t in reversed(range(rewards.shape[1])):
        last = deltas[:, t] + gamma * lam * last
        advantages[:, t] = last
    return advantages * mask, (advantages + values) * mask


def explained_variance(values: Tensor, returns: Tensor, mask: Tensor) -> Tensor:
    """1 - Var(R - V) / Var(R) over True tokens, (): 1 where V foresees the return, 0 where it does no better than a constant.

    All (B, T). openai/baselines, `common/math_util.py::explained_variance`; a variance of returns below 1e-8 counts as 1e-8.
    """
    return 1 - masked_variance(returns - values, mask) / masked_variance(returns, mask).clamp(min=1e-8)
