"""Heat maps of blocks × variants, from the metrics that probes name by block: ``relative_error.03``."""

from __future__ import annotations

import math
from itertools import groupby
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.colors import LinearSegmentedColormap, LogNorm, Normalize
from matplotlib.figure import Figure

from hemorrhage.analysis import tables
from hemorrhage.analysis.curves import REFERENCE, walked
from hemorrhage.reporting import plotting

COLOURS = LinearSegmentedColormap.from_list("damage", plotting.SEVERITY)
DECADES = 4  # of a logarithmic colour scale, at most
ROW, FRAME = 0.24, 1.9  # inches of a variant, and of everything around them


def table(metrics: pd.DataFrame, model: str, probe: str, name: str, study: dict[str, Any]) -> pd.DataFrame:
    """Return the values of ``{name}.{block}`` of one model: a row per variant in reading order, a column per block.

    The reference is left out: it is 0 everywhere. A cell is nan where a variant has no such block.
    """
    chosen = (metrics.model == model) & (metrics.probe == probe) & (metrics.variant != REFERENCE)
    rows = metrics[chosen & metrics.metric.str.startswith(f"{name}.")]
    rows = rows.drop_duplicates(["variant", "metric"])
    blocks = [int(metric.partition(".")[2]) for metric in rows.metric]
    wide = rows.assign(block=blocks).pivot(index="variant", columns="block", values="value")
    return wide.reindex(index=order(metrics[chosen], study), columns=list(range(max(blocks, default=-1) + 1)))


def order(rows: pd.DataFrame, study: dict[str, Any]) -> list[str]:
    """Return the variants by family, method and sweep, each sweep from the harmless end outwards."""
    first = tables.dicts(rows.drop_duplicates("variant"))
    return [str(row["variant"]) for row in sorted(first, key=lambda row: _place(row, study))]


def height(variants: int) -> float:
    """Return the height of a panel with so many variants, in inches."""
    return ROW * max(variants, 2) + FRAME


def scale(values: np.ndarray, logarithmic: bool) -> Normalize:
    """Return the colour scale of values [V, L]: from 0, or over whole decades up to the largest."""
    above = values[np.isfinite(values) & (values > 0)]
    top = float(above.max()) if above.size else 1.0
    if not logarithmic:
        return Normalize(0.0, top, clip=True)
    last = math.ceil(math.log10(top))
    first = math.floor(math.log10(float(above.min()))) if above.size else last
    return LogNorm(10.0 ** min(max(first, last - DECADES), last - 1), 10.0**last, clip=True)


def panel(axes: Axes, shown: pd.DataFrame, colours: Normalize) -> QuadMesh:
    """Draw one table; what is infinite has the darkest colour, a missing block that of the grid."""
    values = shown.to_numpy(dtype=float)
    lowest = float(colours.vmin or 0.0)
    cells = np.ma.masked_invalid(np.where(np.isinf(values), colours.vmax, np.maximum(values, lowest)))
    mesh = axes.pcolormesh(cells, norm=colours, cmap=COLOURS, edgecolors=plotting.PAPER, linewidth=0.4)
    axes.set_facecolor(plotting.PAPER)
    axes.grid(visible=False)
    axes.set_ylim(len(values), 0)
    axes.set_xlim(0, values.shape[1])
    step = max(1, math.ceil(values.shape[1] / 12))
    places = range(0, values.shape[1], step)
    axes.set_xticks([place + 0.5 for place in places], [str(place) for place in places])
    axes.set_xlabel("block of the reference")
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return mesh


def legend(drawn: Figure, axes: Axes, mesh: QuadMesh, text: str, tall: float) -> None:
    """Put the colour scale under a panel that is ``tall`` inches high."""
    bar = drawn.colorbar(mesh, ax=axes, location="bottom", label=text, aspect=45, fraction=0.25 / tall, pad=0.05 / tall)
    bar.outline.set_visible(False)


def families(axes: Axes, shown: pd.DataFrame, family_of: dict[str, str], offset: float = 8) -> None:
    """Draw a line between families and their names on the right, ``offset`` points from the cells."""
    start = 0
    for family, members in groupby(shown.index, key=lambda variant: family_of[variant]):
        end = start + len(list(members))
        if start:
            axes.axhline(start, color=plotting.MUTED, linewidth=0.9)
        axes.annotate(
            family.replace("_", " "),
            (1, (start + end) / 2),
            xycoords=axes.get_yaxis_transform(),
            xytext=(offset, 0),
            textcoords="offset points",
            va="center",
            color=plotting.MUTED,
        )
        start = end


def _place(row: dict[str, Any], study: dict[str, Any]) -> tuple:
    """Where a variant stands: by family, method, sweep, and the level in the direction of more damage."""
    try:
        level = float(row["level"])
    except ValueError:
        level = math.inf
    if row["sweep"]:
        axis = study["axes"].get(str(row["method"]).split("+")[walked(str(row["sweep"]))])
        level = level if axis is None or axis["rises"] else -level
    return row["family"], row["method"], row["sweep"], level, row["variant"]
