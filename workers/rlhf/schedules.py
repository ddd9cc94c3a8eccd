"""Learning rates over the steps of a run, as factors of the peak rate."""

import math


def cosine(step: int, total: int, *, floor: float = 0.1, warmup: int = 0) -> float:
    """Factor at `step` (from 0) of `total`: linear warm-up over `warmup` steps, then half a cosine from 1 down to `floor`.

    InstructGPT, appendix C.1 and C.2: decay to 10 % of the peak, no warm-up. The last step is at `floor` exactly.
    """
    if step < warmup:
        return (step + 1) / (warmup + 1)
    progress = (step - warmup) / max(1, total - warmup - 1)
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def linear_warmup(step: int, warmup: int, *, start: float = 0.1) -> float:
    """Factor at `step` (from 0): linear from `start` to 1 over `warmup` steps, then constant.

    InstructGPT, appendix C.4: "warm-up over the first 10 iterations, starting with one tenth of the peak".
    """
    return 1.0 if step >= warmup else start + (1 - start) * step / warmup
