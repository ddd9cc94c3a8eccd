"""The bounds a simulation must keep for the loop to count as closed: the last round's policy is judged."""

from collections.abc import Sequence
from dataclasses import dataclass

from workers.simulate.report import RoundNumbers, percent

WIN_OVER_SFT, WIN_OVER_SFT_LOW = 0.65, 0.55
WIN_OVER_BASE = 0.85
CEILING_SHARE = 0.90
LARGEST_KL = 10.0
LENGTH_CHANGE = 0.30
FEWEST_PROMPTS, FEWEST_SAMPLES = 200, 4


@dataclass(frozen=True)
class Bound:
    """One bound: what was measured, what it had to be, whether it is kept."""

    name: str
    measured: str
    demanded: str
    is_kept: bool

    def __str__(self) -> str:
        """One line for people."""
        return f"{'pass' if self.is_kept else 'FAIL'}  {self.name}: {self.measured} (bound: {self.demanded})"


def bounds(numbers: RoundNumbers) -> list[Bound]:
    """Every bound against a round's numbers. A NaN keeps no bound."""
    over_sft, over_base = numbers.wins["policy over SFT"], numbers.wins["policy over base"]
    reward, sft, policy = numbers.reward, numbers.models["SFT"], numbers.models["policy"]
    least = CEILING_SHARE * reward.noise_ceiling.value
    length = policy.length_tokens / sft.length_tokens
    return [
        Bound(
            "held-out prompts × samples",
            f"{numbers.prompts} × {numbers.samples}",
            f"≥ {FEWEST_PROMPTS} × {FEWEST_SAMPLES}",
            numbers.prompts >= FEWEST_PROMPTS and numbers.samples >= FEWEST_SAMPLES,
        ),
        Bound("policy over SFT", percent(over_sft.value), f"≥ {percent(WIN_OVER_SFT)}", over_sft.value >= WIN_OVER_SFT),
        Bound(
            "policy over SFT, lower end",
            percent(over_sft.low),
            f"> {percent(WIN_OVER_SFT_LOW)}",
            over_sft.low > WIN_OVER_SFT_LOW,
        ),
        Bound(
            "policy over base",
            percent(over_base.value),
            f"≥ {percent(WIN_OVER_BASE)}",
            over_base.value >= WIN_OVER_BASE,
        ),
        *(
            Bound(
                f"{name}: gold score less SFT's",
                f"{change.value:+.3f}, upper end {change.high:+.3f}",
                "upper end ≥ 0",
                change.high >= 0,
            )
            for name, change in numbers.change_by_category.items()
        ),
        Bound(
            "reward-model accuracy",
            f"{reward.accuracy.value:.3f}",
            f"≥ {least:.3f}, {percent(CEILING_SHARE)} of the noise ceiling {reward.noise_ceiling.value:.3f}",
            reward.accuracy.value >= least,
        ),
        Bound(
            "reward-model accuracy over longer-wins",
            f"{reward.accuracy.value:.3f}",
            f"> {reward.longer_wins.value:.3f}",
            reward.accuracy.value > reward.longer_wins.value,
        ),
        Bound("KL to SFT", f"{numbers.kl.value:.2f} nats", f"≤ {LARGEST_KL:g}", numbers.kl.value <= LARGEST_KL),
        Bound(
            "mean length against SFT's",
            f"{100 * (length - 1):+.1f} %",
            f"within ±{percent(LENGTH_CHANGE)}",
            abs(length - 1) <= LENGTH_CHANGE,
        ),
        *(
            Bound(
                f"trivial policy {one.name!r} loses",
                f"preferred {percent(one.over_policy.value)}, upper end {percent(one.over_policy.high)}",
                "upper end < 50.0 %",
                one.over_policy.high < 0.5,
            )
            for one in numbers.trivial
        ),
    ]


def all_kept(found: Sequence[Bound]) -> bool:
    """Whether every bound is kept."""
    return all(bound.is_kept for bound in found)
