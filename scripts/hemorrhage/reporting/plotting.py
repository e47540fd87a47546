"""The look of the figures, and writing them so that equal data give equal bytes.

The palette (Okabe and Ito) can be told apart with colour-blind eyes; sequences also differ in lightness. Ink, grid and
paper have fixed colours that the report exchanges for those of the reader's theme.
"""

from __future__ import annotations

import math
import os
import textwrap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from hemorrhage import files
from hemorrhage.reporting import wording

INK, MUTED, GRID, PAPER = "#1f2430", "#6b7280", "#e3e6ea", "#ffffff"
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8a6d3b", "#6a51a3")
MARKERS = ("o", "s", "D", "^", "v", "P", "X", "h")
CRITERION_MARKERS = ("o", "D", "s", "^", "v", "P")
SEVERITY = ("#e8eef2", "#f9dcc4", "#f6b48f", "#e5745a", "#b6303b", "#5c1027")
LABEL_WIDTH = 44  # characters under an axis, or beside it, before a line is broken
STYLE: dict[Any, Any] = {
    "svg.hashsalt": "hemorrhage",
    "svg.fonttype": "path",
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "figure.facecolor": PAPER,
    "axes.facecolor": PAPER,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "lines.markersize": 5,
}


@contextmanager
def figure(rows: int, columns: int, size: tuple[float, float], **options: Any) -> Iterator[tuple[Figure, np.ndarray]]:
    """Yield a figure and its axes [rows, columns] in the project's style; it is closed afterwards."""
    with plt.rc_context(STYLE):
        drawn, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained", **options)
        try:
            yield drawn, axes
        finally:
            plt.close(drawn)


def save(drawn: Figure, svg: str | os.PathLike, png: str | os.PathLike) -> None:
    """Write a figure as SVG and PNG, without date and version."""
    with files.atomic(svg) as part:
        drawn.savefig(part, format="svg", metadata={"Date": None, "Creator": None})
    with files.atomic(png) as part:
        drawn.savefig(part, format="png", dpi=160, metadata={"Software": None})


def message(svg: str | os.PathLike, png: str | os.PathLike, text: str) -> None:
    """Write a figure that says why there is nothing to show."""
    with figure(1, 1, (7, 1.2)) as (drawn, axes):
        axes[0, 0].axis("off")
        axes[0, 0].text(0.5, 0.5, text, ha="center", va="center", color=MUTED)
        save(drawn, svg, png)


def damage_axis(axes: Axes, axis: Mapping[str, Any], levels: np.ndarray) -> None:
    """Label an axis with the harmless end on the left; an integer one has ticks at its levels only."""
    low, high = float(np.min(levels)), float(np.max(levels))
    pad = 0.04 * (high - low or 1.0)
    limits = (low - pad, high + pad)
    axes.set_xlim(limits if axis["rises"] else limits[::-1])
    if axis["integer"]:
        axes.set_xticks(sorted(set(levels.tolist())))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_xlabel(textwrap.fill(wording.damage_axis(axis), LABEL_WIDTH))


def plain_log(axis: Axis) -> None:
    """Label a logarithmic axis that spans few decades with plain numbers: 1, 2, 5, 10."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())


def between(levels: np.ndarray, *values: np.ndarray, parts: int = 24) -> list[np.ndarray]:
    """Return the levels and each of ``values`` with points in between, linear as thresholds are interpolated.

    On a logarithmic axis such a line is curved; the thresholds then lie on it.
    """
    steps = np.interp(np.arange((len(levels) - 1) * parts + 1) / parts, np.arange(len(levels)), levels)
    order = np.argsort(levels)
    return [steps, *(np.interp(steps, levels[order], line[order]) for line in values)]


def capped(values: np.ndarray, largest: float) -> tuple[np.ndarray, np.ndarray]:
    """Return values with everything beyond ``largest`` (or not finite) set to it, and where that happened."""
    beyond = ~np.isfinite(values) | (values > largest)
    return np.where(beyond, largest, values), beyond


def top_of(values: list[np.ndarray], at_most: float) -> float:
    """Return the largest finite value, at most ``at_most``."""
    finite = [float(array[np.isfinite(array)].max()) for array in values if np.isfinite(array).any()]
    return min(max(finite, default=1.0), at_most)


def bottom_of(values: list[np.ndarray]) -> float:
    """Return half the smallest value above 0: where a line from exactly 0 enters a logarithmic axis."""
    return 0.5 * min((float(array[array > 0].min()) for array in values if (array > 0).any()), default=1.0)


def curve(
    axes: Axes, levels: np.ndarray, values: np.ndarray, colour: str, straight: bool, lowest: float, style: str = "-"
) -> None:
    """Draw the line through the levels above ``lowest``, straight or as thresholds are interpolated."""
    steps, line = (levels, values) if straight else between(levels, values)
    shown = line > lowest
    axes.plot(steps[shown], line[shown], color=colour, linestyle=style, zorder=3)


def band(
    axes: Axes, levels: np.ndarray, low: np.ndarray, high: np.ndarray, colour: str, straight: bool, lowest: float
) -> None:
    """Draw the band between the interval ends at the levels, in the same form as the line."""
    if len(levels) == 0:
        return
    steps, lower, upper = (levels, low, high) if straight else between(levels, low, high)
    shown = upper > lowest
    axes.fill_between(
        steps[shown], np.maximum(lower[shown], lowest), upper[shown], color=colour, alpha=0.16, linewidth=0, zorder=2
    )


def finite_or(value: float, otherwise: float) -> float:
    """Return ``value`` if it is finite."""
    return value if math.isfinite(value) else otherwise
