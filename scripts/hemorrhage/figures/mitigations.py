"""Mitigations: the damage curve with and without each, and how far the threshold moves."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from hemorrhage.analysis import tables
from hemorrhage.analysis.curves import Curve, curves, label
from hemorrhage.reporting import plotting, wording

COLUMNS = 3
BASELINE, MITIGATED = plotting.MUTED, plotting.PALETTE[2]
LARGEST = 1e3  # nats


def draw(
    paths: Mapping[str, str],
    grid: dict[str, Any],
    settings: Mapping[str, Any],
    figure: Mapping[str, str],
    svg: str,
    png: str,
) -> None:
    """Write the mitigations: a panel per model, mitigation and baseline sweep. Arguments: see the package."""
    metrics, compared = tables.read(paths["metrics"]), tables.read(paths["mitigations"])
    by_sweep = {(curve.model, curve.sweep, curve.protocol): curve for curve in curves(metrics, grid, fewest=1)}
    keys = ["model", "mitigation", "baseline", "sweep", "sweep_baseline", "protocol"]
    groups = [(key, group) for key, group in tables.groups(compared[compared.kind == "threshold"], keys, sort=True)]
    if not groups:
        plotting.message(svg, png, "No mitigation was swept beside its baseline.")
        return
    rows = math.ceil(len(groups) / COLUMNS)
    with plotting.figure(rows, COLUMNS, (10.5, 3.5 * rows)) as (drawn, axes):
        for axis in axes.flat[len(groups) :]:
            axis.axis("off")
        for axis, (key, group) in zip(axes.flat, groups, strict=False):
            model, _, _, sweep, sweep_baseline, protocol = key
            pair = [by_sweep[model, name, protocol] for name in (sweep_baseline, sweep)]
            _panel(axis, pair, metrics, group, settings["criteria"], grid)
        plotting.save(drawn, svg, png)


def _panel(
    axes: Axes,
    pair: list[Curve],
    metrics: pd.DataFrame,
    rows: pd.DataFrame,
    criteria: Mapping[str, dict[str, Any]],
    study: dict[str, Any],
) -> None:
    columns = [curve.values(metrics, "kl") for curve in pair]
    largest = plotting.top_of([values.value.to_numpy() for values in columns], LARGEST)
    lowest = plotting.bottom_of([values.value.to_numpy() for values in columns])
    for curve, values, colour, style in zip(pair, columns, (BASELINE, MITIGATED), ("--", "-"), strict=True):
        height, beyond = plotting.capped(values.value.to_numpy(), 1.6 * largest)
        shown = height > 0
        axes.plot(curve.levels[shown], height[shown], color=colour, linestyle="none", marker="o", markersize=4)
        axes.plot([], [], color=colour, linestyle=style, marker="o", markersize=4, label=label(curve.sweep, study))
        plotting.curve(axes, curve.levels, height, colour, curve.axis["integer"], lowest, style)
        axes.plot(
            curve.levels[beyond],
            height[beyond],
            linestyle="none",
            marker="^",
            markersize=8,
            zorder=4,
            markerfacecolor=plotting.PAPER,
            markeredgecolor=colour,
        )
        low, high = values.low.to_numpy(), values.high.to_numpy()
        known = np.isfinite(low) & np.isfinite(high)
        plotting.band(axes, curve.levels[known], low[known], high[known], colour, curve.axis["integer"], lowest)
    for row in tables.dicts(rows):
        if criteria[row["criterion"]]["metric"] == "kl":
            _arrow(axes, row, criteria[row["criterion"]])
    axes.set_yscale("log")
    plotting.damage_axis(axes, pair[0].axis, np.concatenate([curve.levels for curve in pair]))
    axes.set_ylabel("KL, nats")
    axes.legend(fontsize=7.5, loc="lower left", bbox_to_anchor=(0, 1.0), borderaxespad=0.2)
    main = tables.dicts(rows[rows.criterion == wording.primary(criteria)])
    if main:
        text = f"{main[0]['verdict']}: {wording.shift(main[0])}\nat {wording.criterion(criteria[main[0]['criterion']])}"
        axes.text(
            0.97,
            0.05,
            text,
            transform=axes.transAxes,
            ha="right",
            va="bottom",
            fontsize=7.5,
            bbox={"facecolor": plotting.PAPER, "edgecolor": plotting.GRID, "boxstyle": "round,pad=0.3"},
        )


def _arrow(axes: Axes, row: Mapping[str, Any], criterion: Mapping[str, Any]) -> None:
    """The tolerance as a dotted line, and on it the way from the baseline's threshold to the mitigated one."""
    at = float(criterion["at"])
    axes.axhline(at, color=plotting.MUTED, linestyle=":", linewidth=0.9, zorder=1)
    ends = row["threshold_baseline"], row["threshold_mitigated"]
    if math.isnan(ends[0]) or math.isnan(ends[1]) or ends[0] == ends[1]:
        return
    axes.annotate(
        "",
        (ends[1], at),
        (ends[0], at),
        zorder=5,
        arrowprops={"arrowstyle": "-|>", "color": plotting.INK, "linewidth": 1.6, "shrinkA": 0, "shrinkB": 0},
    )
