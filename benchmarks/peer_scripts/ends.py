"""What both sides of `sampling_vs_generate` run under: stated end lengths, and the peak of memory.

Responses end at lengths spread evenly over 1 to a maximum, or all at the maximum, whatever the model would say by itself. torch
only: the peer imports it too.
"""

import re
import resource
from pathlib import Path
from typing import Any

import torch


def peak_mib() -> float:
    """This process's peak of resident memory. getrusage alone would count the program that started it, up to its exec."""
    status = Path("/proc/self/status")
    if status.exists() and (found := re.search(r"VmHWM:\s+(\d+) kB", status.read_text(encoding="utf-8"))):
        return int(found.group(1)) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


class Ends:
    """A hook on a causal language model that decides which rows end at this token."""

    def __init__(self, end_id: int, prompt_tokens: int, max_new_tokens: int, *, dense: bool) -> None:
        """All prompts have `prompt_tokens`; `dense` lets no response end before the maximum."""
        self.end_id, self.prompt_tokens, self.most, self.dense = end_id, prompt_tokens, max_new_tokens, dense
        self.generator = torch.Generator().manual_seed(0)

    def __call__(self, _: Any, __: Any, kwargs: dict[str, Any], output: Any) -> Any:
        """Rows that have t tokens end at the next with probability 1 / (maximum - t): each length is as likely as another."""
        drawn = kwargs["position_ids"][:, -1].cpu() + 1 - self.prompt_tokens
        left = self.most - drawn
        chance = (left <= 1).float() if self.dense else 1 / left.clamp(min=1)
        ends = torch.rand(len(drawn), generator=self.generator) < chance
        last = output.logits[:, -1]
        last[:, self.end_id] = -1e9
        last[ends.to(last.device)] = -1e9
        last[ends.to(last.device), self.end_id] = 0.0
        return output
