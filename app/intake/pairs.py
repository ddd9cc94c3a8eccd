"""Direct comparisons of a snapshot's row, brought to tiers where they agree on an order."""

from collections.abc import Sequence

from app.intake.turns import kind_of


def read_pairs(cell: object, samples: Sequence[object]) -> list[int | None]:
    """Tiers of the responses, which `samples` names; None for one that no pair has.

    Raises ValueError where the pairs leave two of them uncompared or make no order: an import keeps orders only.
    """
    if not isinstance(cell, list):
        raise ValueError(f"pairs is {kind_of(cell)}; expected a list of comparisons with left, right and p_left")
    margins: dict[tuple[object, object], float] = {}
    for pair in cell:
        left, right, margin = _read_pair(pair, samples)
        margins[left, right], margins[right, left] = margin, -margin
    compared = sorted({left for left, _ in margins}, key=samples.index)
    beaten_by = {one: sum(margins.get((one, other), 0) < 0 for other in compared) for one in compared}
    for one in compared:
        for other in compared:
            if one != other and _sign(margins.get((one, other))) != _sign(beaten_by[other] - beaten_by[one]):
                raise ValueError(
                    "pairs leave two responses uncompared or contradict each other; give each response a tier instead"
                )
    return [beaten_by[sample] + 1 if sample in beaten_by else None for sample in samples]


def _read_pair(pair: object, samples: Sequence[object]) -> tuple[object, object, float]:
    if not isinstance(pair, dict):
        raise ValueError(f"a pair is {kind_of(pair)}; expected an object with left, right and p_left")
    left, right, chance = pair.get("left"), pair.get("right"), pair.get("p_left")
    for side in (left, right):
        if not isinstance(side, str) or side not in samples:
            raise ValueError(f"a pair names the sample {side!r}, which no response of the row has")
    if isinstance(chance, bool) or not isinstance(chance, int | float) or not 0 <= chance <= 1:
        raise ValueError(f"p_left of a pair is {chance!r}; expected a number from 0 to 1")
    return left, right, chance - 0.5


def _sign(value: float | None) -> int | None:
    return None if value is None else (value > 0) - (value < 0)
