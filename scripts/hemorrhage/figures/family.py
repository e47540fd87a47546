"""One family's damage curves: KL and perplexity ratio against the level, with bands, floors and thresholds."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import AutoLocator, LogLocator, NullLocator

from hemorrhage.analysis import tables, thresholds
from hemorrhage.analysis.curves import Curve, curves, label
from hemorrhage.reporting import plotting, wording

LARGEST_RATIO = 1e4
LEGEND_WIDTH = 30  # characters in a line
MOST = len(plotting.PALETTE)  # curves in a panel


def draw(
    paths: Mapping[str, str],
    grid: dict[str, Any],
    settings: Mapping[str, Any],
    figure: Mapping[str, str],
    svg: str,
    png: str,
) -> None:
    """Write a family's figure: a row of two panels per model and axis. Arguments: see the package."""
    metrics, found, floors = (tables.read(paths[name]) for name in ("metrics", "thresholds", "floors"))
    rows = panels(curves(metrics, grid, fewest=1), figure["family"])
    if not rows:
        plotting.message(svg, png, f"No variant of the family “{figure['family']}” walks an axis.")
        return
    with plotting.figure(len(rows), 2, (10.5, 3.7 * len(rows))) as (drawn, axes):
        for (left, right), row in zip(axes, rows, strict=True):
            colours = {curve.sweep: place for place, curve in enumerate(row)}
            marks = found[(found.model == row[0].model) & found.sweep.isin(list(colours))]
            _kl_panel(left, row, metrics, settings["criteria"], marks, grid)
            _floor_lines(left, floors, row[0].model)
            _ratio_panel(right, row, metrics, wording.scale(settings["severity"]))
            left.set_title(f"{row[0].model}: information lost")
            right.set_title("perplexity")
            handles, names = left.get_legend_handles_labels()
            names = [textwrap.fill(name, LEGEND_WIDTH) for name in names]
            right.legend(handles, names, loc="center left", bbox_to_anchor=(1.2, 0.5), fontsize=8)
        plotting.save(drawn, svg, png)


def panels(found: list[Curve], family: str) -> list[list[Curve]]:
    """Return the family's curves grouped by model and axis, as many in a row as there are colours.

    Single points alone make no panel if curves exist, and make room where a panel has more curves than colours.
    """
    shown = sorted((curve for curve in found if curve.family == family), key=_panel)
    rows = [list(group) for _, group in groupby(shown, key=_panel)]
    walked = [row for row in rows if any(_walks(curve) for curve in row)]
    result = []
    for row in walked or rows:
        if len(row) > MOST and row in walked:
            row = [curve for curve in row if _walks(curve)]
        parts = -(-len(row) // MOST)
        size = -(-len(row) // parts)
        result += [row[start : start + size] for start in range(0, len(row), size)]
    return result


def _walks(curve: Curve) -> bool:
    return len(curve.levels) - curve.anchored > 1


def _panel(curve: Curve) -> tuple:
    return curve.model, curve.axis["setting"], curve.axis["unit"], curve.axis["rises"], curve.protocol


def _kl_panel(
    axes: Axes,
    row: list[Curve],
    metrics: pd.DataFrame,
    criteria: Mapping[str, dict[str, Any]],
    marks: pd.DataFrame,
    study: dict[str, Any],
) -> None:
    columns = [curve.values(metrics, "kl") for curve in row]
    largest = plotting.top_of([values.value.to_numpy() for values in columns], 1e3)
    lowest = plotting.bottom_of([values.value.to_numpy() for values in columns])
    for place, (curve, values) in enumerate(zip(row, columns, strict=True)):
        height, beyond = plotting.capped(values.value.to_numpy(), largest * 1.6)
        _line(axes, curve, values, height, beyond, place, label(curve.sweep, study), lowest)
        for name, criterion in criteria.items():
            if criterion["metric"] == "kl":
                _mark(axes, marks[(marks.sweep == curve.sweep) & (marks.criterion == name)], criterion, place, curve)
    axes.set_yscale("log")
    for criterion in criteria.values():
        if criterion["metric"] == "kl":
            axes.axhline(criterion["at"], color=plotting.MUTED, linestyle=":", linewidth=1, zorder=1)
            axes.annotate(
                f"{criterion['at']:g}",
                (1, criterion["at"]),
                xycoords=("axes fraction", "data"),
                xytext=(3, 0),
                textcoords="offset points",
                va="center",
                fontsize=7.5,
                color=plotting.MUTED,
            )
    plotting.damage_axis(axes, row[0].axis, np.concatenate([curve.levels for curve in row]))
    axes.set_ylabel("KL(reference ‖ variant), nats")


def _ratio_panel(axes: Axes, row: list[Curve], metrics: pd.DataFrame, severity: Sequence[Sequence[Any]]) -> None:
    columns = [curve.values(metrics, "perplexity_ratio") for curve in row]
    largest = plotting.top_of([values.value.to_numpy() for values in columns], LARGEST_RATIO)
    for place, (curve, values) in enumerate(zip(row, columns, strict=True)):
        height, beyond = plotting.capped(values.value.to_numpy(), largest * 1.3)
        _line(axes, curve, values, height, beyond, place, None, None)
    axes.set_yscale("log")
    lowest = min(float(np.nanmin(values.value)) for values in columns)
    bottom, top = min(0.97, 0.97 * max(lowest, 0.5)), max(1.6 * largest, 1.3)
    axes.set_ylim(bottom, top)
    edge = bottom
    for (word, increase), colour in zip(severity, plotting.SEVERITY, strict=False):
        end = min(1 + float(increase), top)
        if end > edge:
            axes.axhspan(edge, end, color=colour, alpha=0.22, linewidth=0, zorder=0)
            if math.log(end / edge) > 0.04 * math.log(top / bottom):
                axes.annotate(
                    word,
                    (1, math.sqrt(edge * end)),
                    xycoords=("axes fraction", "data"),
                    xytext=(4, 0),
                    textcoords="offset points",
                    va="center",
                    fontsize=7.5,
                    color=plotting.MUTED,
                )
        edge = max(edge, end)
    axes.axhline(1, color=plotting.MUTED, linewidth=0.9)
    axes.yaxis.set_major_locator(
        AutoLocator() if top / bottom < 5 else LogLocator(subs=(1, 2, 5) if top / bottom < 200 else (1,))
    )
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    plotting.damage_axis(axes, row[0].axis, np.concatenate([curve.levels for curve in row]))
    axes.set_ylabel("perplexity ÷ reference's")


def _line(
    axes: Axes,
    curve: Curve,
    values: pd.DataFrame,
    height: np.ndarray,
    beyond: np.ndarray,
    place: int,
    name: str | None,
    lowest: float | None,
) -> None:
    """One curve with its band; points that cannot be drawn to scale sit on the top edge as open triangles.

    Without ``lowest`` it is straight between the levels, which for a ratio is linear in nats; so it is on whole levels.
    """
    colour = plotting.PALETTE[place % len(plotting.PALETTE)]
    marker = plotting.MARKERS[place % len(plotting.MARKERS)]
    shown = height > 0  # the harmless end is exactly 0, which a logarithmic axis does not have
    single = len(curve.levels) - curve.anchored == 1
    if single:
        shown[:-1] = False
    axes.plot(curve.levels[shown], height[shown], color=colour, marker=marker, linestyle="none", zorder=3)
    axes.plot([], [], color=colour, marker=marker, label=name, linestyle="none" if single else "-")
    low, high = values.low.to_numpy(), values.high.to_numpy()
    known = np.isfinite(low) & np.isfinite(high)
    if not single:
        straight = curve.axis["integer"] or lowest is None
        plotting.curve(axes, curve.levels, height, colour, straight, lowest or 0.0)
        plotting.band(axes, curve.levels[known], low[known], high[known], colour, straight, lowest or 0.0)
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


def _mark(axes: Axes, rows: pd.DataFrame, criterion: Mapping[str, Any], place: int, curve: Curve) -> None:
    """The threshold on its tolerance line: a point with its interval, or the two levels that bracket it."""
    colour = plotting.PALETTE[place % len(plotting.PALETTE)]
    for row in tables.rows(rows):
        if row.state != thresholds.INSIDE:
            continue
        if curve.axis["integer"]:
            axes.plot(
                [row.inside, row.outside],
                [criterion["at"]] * 2,
                color=colour,
                marker="|",
                markersize=7,
                linewidth=1.2,
                zorder=4,
            )
            continue
        ends = [plotting.finite_or(end, row.threshold) for end in (row.low, row.high)]
        axes.errorbar(
            row.threshold,
            criterion["at"],
            xerr=[[row.threshold - ends[0]], [ends[1] - row.threshold]],
            color=colour,
            marker="o",
            markersize=6,
            markerfacecolor=plotting.PAPER,
            capsize=3,
            linewidth=1.4,
            zorder=5,
        )


def _floor_lines(axes: Axes, floors: pd.DataFrame, model: str) -> None:
    """Floors above 0 as dashed lines; those of exactly 0 in words."""
    rows = floors[(floors.model == model) & (floors.metric == "kl")]
    zero = [row.floor for row in tables.rows(rows) if row.value == 0]
    for row in tables.rows(rows):
        if row.value > 0:
            axes.axhline(row.value, color=plotting.MUTED, linestyle="--", linewidth=1)
            axes.annotate(
                f"floor: {row.floor}, {wording.number(row.value, 2)}",
                (0.01, row.value),
                xycoords=("axes fraction", "data"),
                xytext=(0, 3),
                textcoords="offset points",
                fontsize=7.5,
                color=plotting.MUTED,
            )
    if zero:
        axes.annotate(
            f"floor: {', '.join(zero)}, exactly 0",
            (0.99, 0.015),
            xycoords="axes fraction",
            ha="right",
            fontsize=7.5,
            color=plotting.MUTED,
        )
