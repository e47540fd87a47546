"""Attention: how far each block's attention maps are from the reference's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from hemorrhage.analysis import tables
from hemorrhage.analysis.curves import label
from hemorrhage.reporting import heatmaps, plotting, wording

PROBE = "attention"
MEAN = "disruption"
SECTION = "Where the damage starts"
CAPTION = (
    "Each cell is the disruption of one block's attention: the Jensen-Shannon divergence of the maps of variant and "
    "reference over ln 2, mean over heads and tokens; 0 is the same map, 1 no key in common. On the right the mean "
    "over blocks. Grey cells: the variant has no such block."
)


def draw(
    paths: Mapping[str, str],
    grid: dict[str, Any],
    settings: Mapping[str, Any],
    figure: Mapping[str, str],
    svg: str,
    png: str,
) -> None:
    """Write the disruption: a panel per model, blocks × variants. Arguments: see the package."""
    metrics = tables.read(paths["metrics"])
    metrics = metrics[metrics.probe == PROBE]
    shown = {model: heatmaps.table(metrics, model, PROBE, MEAN, grid) for model in sorted(metrics.model.unique())}
    shown = {model: frame for model, frame in shown.items() if frame.notna().any(axis=None)}
    if not shown:
        plotting.message(svg, png, "No modified variant with attention was measured with the probe “attention”.")
        return
    heights = [heatmaps.height(len(frame)) for frame in shown.values()]
    family_of = dict(zip(metrics.variant, metrics.family, strict=True))
    with plotting.figure(len(shown), 1, (10.5, sum(heights)), height_ratios=heights) as (drawn, axes):
        for axis, (model, frame) in zip(axes[:, 0], shown.items(), strict=True):
            mesh = heatmaps.panel(axis, frame, heatmaps.scale(frame.to_numpy(dtype=float), logarithmic=False))
            heatmaps.legend(drawn, axis, mesh, "disruption of attention, 0 to 1", heatmaps.height(len(frame)))
            axis.set_title(f"{model}: attention, block by block")
            axis.set_yticks(np.arange(len(frame)) + 0.5, [label(slug, grid) for slug in frame.index])
            _means(axis, frame, metrics[(metrics.model == model) & (metrics.metric == MEAN)])
            heatmaps.families(axis, frame, family_of, offset=44)
        plotting.save(drawn, svg, png)


def _means(axes: Axes, frame: pd.DataFrame, rows: pd.DataFrame) -> None:
    """The mean over blocks of every variant beside its row."""
    means = dict(zip(rows.variant, rows.value, strict=True))
    for place, variant in enumerate(frame.index):
        axes.annotate(
            wording.number(means.get(variant, float("nan"))),
            (1, place + 0.5),
            xycoords=axes.get_yaxis_transform(),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
        )
