"""Pictures of studies: curves in panels, as an SVG that is the same bytes from the same numbers.

matplotlib is imported inside: only who draws needs it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Told apart by colour-blind people too (Okabe and Ito 2008)."""


@dataclass(frozen=True)
class Curve:
    """A line through points; dashed where it is not what counts."""

    name: str
    """In the legend; empty: not there."""
    x: Sequence[float]
    y: Sequence[float]
    colour: int
    """Place in COLOURS."""
    is_dashed: bool = False
    errors: Sequence[float] = ()
    """Standard errors, drawn as a band of one on either side."""


@dataclass(frozen=True)
class Mark:
    """A place on a curve that is pointed out."""

    name: str
    """In the legend; empty: not there."""
    x: float
    y: float
    colour: int
    """Place in COLOURS."""
    symbol: str = "o"
    """matplotlib's name of a marker."""


@dataclass(frozen=True)
class Panel:
    """Curves over one pair of axes."""

    title: str
    x: str
    """What the axis shows, with its unit."""
    y: str
    curves: Sequence[Curve]
    marks: Sequence[Mark] = ()


def draw(path: Path, panels: Sequence[Panel], *, share_y: bool = False) -> None:
    """Write the panels, side by side, as SVG. Text stays text, so that it can be searched and read aloud."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"svg.hashsalt": "preferable", "svg.fonttype": "none", "font.size": 10}):
        figure = Figure(figsize=(5.2 * len(panels), 5.2), layout="constrained")
        rows = figure.subplots(1, len(panels), sharey=share_y, squeeze=False)
        for axes, panel in zip(rows[0], panels, strict=True):
            for curve in panel.curves:
                colour, style = COLOURS[curve.colour], "--" if curve.is_dashed else "-"
                axes.plot(curve.x, curve.y, style, color=colour, label=curve.name or "_", linewidth=1.8)
                if curve.errors:
                    low = [y - error for y, error in zip(curve.y, curve.errors, strict=True)]
                    high = [y + error for y, error in zip(curve.y, curve.errors, strict=True)]
                    axes.fill_between(curve.x, low, high, color=colour, alpha=0.15, linewidth=0)
            for mark in panel.marks:
                colour, name = COLOURS[mark.colour], mark.name or "_"
                axes.plot(
                    [mark.x], [mark.y], mark.symbol, color=colour, markeredgecolor="black", markersize=9, label=name
                )
            axes.set(title=panel.title, xlabel=panel.x, ylabel=panel.y)
            axes.grid(alpha=0.3)
            axes.spines[["top", "right"]].set_visible(False)
            if any(curve.name for curve in panel.curves) or any(mark.name for mark in panel.marks):
                axes.legend(frameon=False, fontsize=9, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.15))
        figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})
