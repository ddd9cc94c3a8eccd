"""Statistics over the True entries of a mask, as OpenAI's code takes them (biased variance)."""

from torch import Tensor


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean () of the entries of `values` where `mask` of the same shape is True; 0 where it is True nowhere."""
    return (values * mask).sum() / mask.sum().clamp(min=1)


def masked_variance(values: Tensor, mask: Tensor) -> Tensor:
    """Variance () of the entries where `mask` is True, divided by their number (biased, as `tf.nn.moments`)."""
    return masked_mean((values - masked_mean(values, mask)) ** 2, mask)


def whiten(values: Tensor, mask: Tensor, *, center: bool = True) -> Tensor:
    """Scale the True entries of `values` (B, T) to variance 1 and, with `center`, shift their mean to 0; 0 elsewhere.

    Advantages are centred; rewards, where whitened at all, are not: their mean is what PPO is after. Without `center` the mean
    stays as it was. Source: openai/lm-human-preferences `utils/core.py::whiten`, eps 1e-8 under the root; its `shift_mean` is
    our `center`. trl and torchtune take the unbiased variance instead, torchtune keeps the mean by default.
    """
    mean = masked_mean(values, mask)
    whitened = (values - mean) * (masked_variance(values, mask) + 1e-8).rsqrt()
    return (whitened if center else whitened + mean) * mask
