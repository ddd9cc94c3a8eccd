"""Best-of-n as a baseline: what the sample of the highest proxy score is worth. Its KL is `kl.best_of_n_kl`."""

import math

import torch
from torch import Tensor


def expected_gold(proxy: Tensor, gold: Tensor, n: int) -> Tensor:
    """(B,) expected gold score of the best of n by the proxy, from N >= n samples of each of B prompts: proxy, gold (B, N).

        sum_i  C(i - 1, n - 1) / C(N, n)  gold_(i),    gold_(i) of the sample with the i-th lowest proxy score, i = 1 ... N

    Nakano et al. 2021 (WebGPT), appendix I: the mean over all C(N, n) sets of n samples, since sample i is the best of those sets
    whose other n - 1 lie below it. Unbiased for every n up to N from the same N samples; among equal proxy scores the later
    sample counts as the better. Raises ValueError for n outside 1 ... N.
    """
    total = proxy.shape[1]
    if not 1 <= n <= total:
        raise ValueError(f"n is {n}; expected 1 to {total}, the samples there are of each prompt")
    weights = [
        math.comb(below, n - 1) / math.comb(total, n) for below in range(total)
    ]  # exact integers, then one division
    ordered = gold.gather(1, proxy.sort(dim=1, stable=True).indices)
    return ordered @ torch.tensor(weights, dtype=gold.dtype, device=gold.device)
