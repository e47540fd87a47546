"""Cascade: how the error grows from block to block, and how much each block does on its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from hemorrhage.analysis import tables
from hemorrhage.analysis.curves import label
from hemorrhage.reporting import heatmaps, plotting

PROBE = "cascade"
PANELS = {
    "relative_error": ("the error after each block", "relative error of the residual stream"),
    "swap_kl": ("each block alone, in the reference", "KL, nats"),
}
MARK_INK, MARK_PAPER = "#101010", "#fefefe"  # on coloured cells these stay as they are in every theme
SECTION = "Where the damage starts"
CAPTION = (
    "Left: the relative error of the residual stream after each block, from the first to the last; a row that darkens "
    "gathers error on its way. Right: the damage of the variant's block alone in the otherwise unmodified model; the "
    "white point marks the block that does most. Grey cells: the variant has no such block, or not exactly one."
)


def draw(
    paths: Mapping[str, str],
    grid: dict[str, Any],
    settings: Mapping[str, Any],
    figure: Mapping[str, str],
    svg: str,
    png: str,
) -> None:
    """Write the cascade: a row per model, error and single-block damage. Arguments: see the package."""
    metrics = tables.read(paths["metrics"])
    metrics = metrics[metrics.probe == PROBE]
    shown = {
        model: [heatmaps.table(metrics, model, PROBE, name, grid) for name in PANELS]
        for model in sorted(metrics.model.unique())
    }
    shown = {model: pair for model, pair in shown.items() if pair[0].notna().any(axis=None)}
    if not shown:
        plotting.message(svg, png, "No modified variant was measured with the probe “cascade”.")
        return
    heights = [heatmaps.height(len(pair[0])) for pair in shown.values()]
    family_of = dict(zip(metrics.variant, metrics.family, strict=True))
    with plotting.figure(len(shown), 2, (10.5, sum(heights)), height_ratios=heights) as (drawn, axes):
        for row, (model, pair) in zip(axes, shown.items(), strict=True):
            for axis, frame, (title, quantity) in zip(row, pair, PANELS.values(), strict=True):
                frame = frame.reindex(columns=pair[0].columns)
                mesh = heatmaps.panel(axis, frame, heatmaps.scale(frame.to_numpy(dtype=float), logarithmic=True))
                axis.set_title(title)
                if frame.notna().any(axis=None):
                    heatmaps.legend(drawn, axis, mesh, quantity, heatmaps.height(len(frame)))
                else:
                    axis.text(0.5, 0.5, "no block was swapped", transform=axis.transAxes, ha="center", va="center")
            _most(row[1], pair[1].to_numpy(dtype=float))
            row[0].set_title(f"{model}: {PANELS['relative_error'][0]}")
            row[0].set_yticks(np.arange(len(pair[0])) + 0.5, [label(slug, grid) for slug in pair[0].index])
            row[1].set_yticks([])
            heatmaps.families(row[1], pair[0], family_of)
        plotting.save(drawn, svg, png)


def _most(axes: Axes, values: np.ndarray) -> None:
    """A point on the block that does most, for every variant in which one does anything."""
    for place, row in enumerate(values):
        known = np.nan_to_num(row, nan=0.0)
        if known.size and known.max() > 0:
            axes.plot(
                int(known.argmax()) + 0.5,
                place + 0.5,
                marker="o",
                markersize=4,
                linestyle="none",
                markerfacecolor=MARK_PAPER,
                markeredgecolor=MARK_INK,
                markeredgewidth=0.8,
            )
