"""How do the report's figures look? Colours that colour-blind people can tell apart, and what all figures share."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence

from matplotlib.figure import Figure

INK, FAINT, GRID = "#1f2933", "#9aa5b1", "#e4e7eb"
ACCENT, SECOND, THIRD, WARN = "#0b7285", "#e8590c", "#6741d9", "#c92a2a"
"""The winner, the base model, another trial, and what went wrong."""
SEQUENCE = ("#d0bfff", "#9775fa", "#6741d9", "#3b1c8c", "#c2255c", "#f06595")
"""For values in order, such as ranks: light to dark."""

STYLE = {
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.grid": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "svg.hashsalt": "lvray",  # or every drawing of the same folder would differ
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}


def spread(heights: Sequence[float], gap: float) -> list[float]:
    """Heights in the same order, moved up as little as keeps any two of them `gap` apart."""
    moved = list(heights)
    below = -math.inf
    for index in sorted(range(len(moved)), key=lambda index: heights[index]):
        below = moved[index] = max(moved[index], below + gap)
    return moved


def svg(figure: Figure) -> str:
    """The figure as SVG text, the same for the same figure."""
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None}, transparent=False)
    whole = text.getvalue()
    return whole[whole.index("<svg") :]
