"""The losses of the three stages. Each returns a sum over its units, so that a batch may be cut into micro-batches.

The caller divides by the units of the whole batch (tokens, or judgements), never by those of a micro-batch: the gradient then
does not depend on how the batch was cut.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F


def nll(logprobs: Tensor, mask: Tensor) -> Tensor:
    """Negative log-likelihood () in nats, summed over the tokens of logprobs (B, T) where mask (B, T) is True.

    Supervised fine-tuning, InstructGPT section 3.5: response tokens. PPO-ptx, Eq. 2, second term: all tokens of a text that have
    one before them.
    """
    return -(logprobs * mask).sum()


def preferences(tiers: Tensor, rankable: Tensor, *, tie: float = 0.0) -> Tensor:
    """(J, K, K) with 1.0 at [j, a, b] where judgement j puts output a above output b, from tiers (J, K), 1 the best.

    Outputs that are not rankable (rankable (J, K) False) make no comparison. `tie` stands at [j, a, b] and [j, b, a] of two
    outputs in one tier: 0 drops ties (InstructGPT, appendix C.2), 1/2 makes them the target "as likely better as worse".
    """
    above = tiers[:, :, None] < tiers[:, None, :]
    level = tiers[:, :, None] == tiers[:, None, :]
    paired = (
        rankable[:, :, None] & rankable[:, None, :] & ~torch.eye(tiers.shape[1], dtype=torch.bool, device=tiers.device)
    )
    return (above.float() + tie * level.float()) * paired


def ranking_loss(scores: Tensor, preferred: Tensor, weights: Tensor, margins: Tensor | float = 0.0) -> Tensor:
    """K-wise reward-model loss (), summed over J judgements; divide by the sum of the weights of the batch.

        loss = - sum_j w_j / C(K_j, 2)  sum_{a, b} p_jab log sigmoid(r_ja - r_jb - m_jab)       InstructGPT, Eq. 1

    scores (J, K) are r_theta of the K outputs of each judgement, encoded once each; weights (J,). preferred (J, K, K) is the
    target probability p that output a is better than b, 1 - p at [b, a], and 0 at both where the two are not compared. All pairs
    of a ranking lie in one batch element, because they are correlated and shuffled apart they overfit in a single pass.

    Every kind of label is a case: a ranking has p = 1, a tie p = 1/2, a soft judge its probability. A graded strength has, with
    its p, margins (J, K, K) in units of the score, m_ab = -m_ba, by which a is to lie above b (Llama 2, Eq. 2): each pair is the
    cross-entropy of p under sigmoid(r_a - r_b - m_ab), least where r_a - r_b = logit(p) + m_ab.

    K_j counts the outputs that judgement j compares: those it found rankable. Dropped ties are left out of the sum and not of
    the divisor, so that one comparison among many ties weighs no more than one among none. A judgement without comparison adds
    nothing.
    """
    difference = scores[:, :, None] - scores[:, None, :] - margins
    compared = (preferred + preferred.mT > 0).any(2).sum(1)  # (J,)
    pairs = compared * (compared - 1) / 2
    per_judgement = (preferred * F.softplus(-difference)).sum((1, 2)) / pairs.clamp(min=1)
    return (weights * per_judgement).sum()


class PolicyLoss(NamedTuple):
    """The clipped policy loss with what PPO watches, all () and summed over tokens."""

    loss: Tensor
    clipped: Tensor
    """Tokens whose clipped term is the larger: they give no gradient."""
    approx_kl: Tensor
    """Sum of (log ratio)^2 / 2, Schulman's k2 estimate of KL(old || new)."""


def policy_loss(
    logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, mask: Tensor, *, cliprange: float
) -> PolicyLoss:
    """PPO's clipped surrogate, negated: sum over True tokens of max(-A rho, -A clip(rho, 1 - eps, 1 + eps)).

    All (B, T); rho = exp(logprobs - old_logprobs), eps is `cliprange`. Schulman et al. 2017, Eq. 7. Masked tokens have ratio 1
    and add nothing.
    """
    log_ratio = (logprobs - old_logprobs) * mask
    ratio = log_ratio.exp()
    unclipped, clipped = -advantages * ratio, -advantages * ratio.clamp(1 - cliprange, 1 + cliprange)
    with torch.no_grad():
        cut = ((clipped > unclipped) * mask).sum()
        approx_kl = 0.5 * (log_ratio**2).sum()
    return PolicyLoss((torch.max(unclipped, clipped) * mask).sum(), cut, approx_kl)


def value_loss(values: Tensor, old_values: Tensor, returns: Tensor, mask: Tensor, *, cliprange_value: float) -> Tensor:
    """Clipped value loss (): half the sum over True tokens of the larger squared error of V and of V kept near its old value.

        0.5 max((V - R)^2, (V_old + clip(V - V_old, -eps, eps) - R)^2),    eps is `cliprange_value`

    All (B, T). OpenAI's `vf_losses`, lm-human-preferences `train_policy.py`.
    """
    near = old_values + (values - old_values).clamp(-cliprange_value, cliprange_value)
    return 0.5 * (torch.max((values - returns) ** 2, (near - returns) ** 2) * mask).sum()
