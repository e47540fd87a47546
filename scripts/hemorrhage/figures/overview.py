"""What survives: every sweep as a bar from the harmless end outwards, coloured by severity, with its thresholds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from hemorrhage.analysis import isotonic, tables, thresholds
from hemorrhage.analysis.curves import Curve, curves, label
from hemorrhage.reporting import plotting, wording

MARK_INK, MARK_PAPER = "#101010", "#fefefe"  # on coloured bars these stay as they are in every theme
STEPS = 400  # parts into which a continuous bar is cut to colour it


def draw(
    paths: Mapping[str, str],
    grid: dict[str, Any],
    settings: Mapping[str, Any],
    figure: Mapping[str, str],
    svg: str,
    png: str,
) -> None:
    """Write the overview: a panel per model and axis, the most robust sweep on top. Arguments: see the package."""
    metrics, found = tables.read(paths["metrics"]), tables.read(paths["thresholds"])
    criteria, severity = settings["criteria"], wording.scale(settings["severity"])
    panels = ranked(curves(metrics, grid), found, criteria)
    if not panels:
        plotting.message(svg, png, "No sweep has two levels yet.")
        return
    heights = [len(panel) + 1.1 for panel in panels]
    size = (10.5, 0.36 * sum(heights) + 1.4)
    with plotting.figure(len(panels), 1, size, height_ratios=heights) as (drawn, axes):
        models = list(dict.fromkeys(panel[0].model for panel in panels))
        for axis, panel in zip(axes[:, 0], panels, strict=True):
            _panel(axis, panel, metrics, found, criteria, severity, grid)
            if len(models) > 1:
                axis.set_title(panel[0].model)
        subject = models[0] if len(models) == 1 else "each model"
        drawn.suptitle(f"How far {subject} can be modified before it bleeds", fontsize=12, fontweight="bold")
        _legend(drawn, criteria, severity)
        plotting.save(drawn, svg, png)


def ranked(found: list[Curve], table: pd.DataFrame, criteria: Mapping[str, dict[str, Any]]) -> list[list[Curve]]:
    """Return the curves grouped by model and axis, each group from the most robust to the least."""
    name = wording.primary(criteria)
    rows = {(row.model, row.sweep, row.protocol): row for row in tables.rows(table[table.criterion == name])}

    def survives(curve: Curve) -> float:
        row = rows.get((curve.model, curve.sweep, curve.protocol))
        sign = 1 if curve.axis["rises"] else -1
        if row is None or row.state == thresholds.EXCEEDED:
            return -math.inf
        return sign * (row.threshold if row.state == thresholds.INSIDE else plotting.finite_or(row.inside, -math.inf))

    def group(curve: Curve) -> tuple:
        return curve.model, curve.axis["integer"], curve.axis["unit"], curve.axis["setting"], curve.protocol

    groups = [list(members) for _, members in groupby(sorted(found, key=group), key=group)]
    return [sorted(members, key=lambda curve: (-survives(curve), curve.sweep)) for members in groups]


def _panel(
    axes: Axes,
    panel: list[Curve],
    metrics: pd.DataFrame,
    found: pd.DataFrame,
    criteria: Mapping[str, dict[str, Any]],
    severity: Sequence[Sequence[Any]],
    study: dict[str, Any],
) -> None:
    main, places = wording.primary(criteria), _places(panel)
    for height, curve in enumerate(panel):
        _bar(axes, height, curve, metrics, severity, places)
        rows = found[(found.model == curve.model) & (found.sweep == curve.sweep) & (found.protocol == curve.protocol)]
        _marks(axes, height, rows, criteria, places)
        for row in tables.dicts(rows[rows.criterion == main]):
            axes.annotate(
                wording.threshold(row, curve.axis),
                (1, height),
                xycoords=("axes fraction", "data"),
                xytext=(8, 0),
                textcoords="offset points",
                va="center",
                fontsize=8.5,
            )
    axes.set_yticks(range(len(panel)), [label(curve.sweep, study) for curve in panel])
    axes.set_ylim(len(panel) - 0.45, -0.55)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="y", visible=False)
    plotting.damage_axis(axes, panel[0].axis, np.concatenate([curve.levels for curve in panel]))
    if places:
        axes.set_xticks(list(places.values()), [f"{level:g}" for level in places])
        axes.set_xlim(-0.55, len(places) - 0.45)
        axes.grid(visible=False)
    axes.annotate(
        wording.criterion(criteria[main]),
        (1, 1),
        xycoords="axes fraction",
        xytext=(8, 2),
        textcoords="offset points",
        fontsize=7.5,
        color=plotting.MUTED,
    )


def _places(panel: list[Curve]) -> dict[float, int]:
    """On integer axes every level of the panel gets a column of equal width; empty for continuous axes."""
    if not panel[0].axis["integer"]:
        return {}
    levels = sorted({level for curve in panel for level in curve.levels.tolist()}, reverse=not panel[0].axis["rises"])
    return {level: place for place, level in enumerate(levels)}


def _bar(
    axes: Axes,
    height: int,
    curve: Curve,
    metrics: pd.DataFrame,
    severity: Sequence[Sequence[Any]],
    places: dict[float, int],
) -> None:
    """One sweep's bar in the colours of severity; ticks under it are the measured levels."""
    values = curve.values(metrics, "delta_nll")
    nats = isotonic.fit(values.value.to_numpy(dtype=float), thresholds.weights_of(values.se.to_numpy(dtype=float)))
    for colour, run in groupby(_pieces(curve, nats, severity, places), key=lambda piece: piece[2]):
        pieces = list(run)
        for start, end in [piece[:2] for piece in pieces] if places else [(pieces[0][0], pieces[-1][1])]:
            axes.barh(height, end - start, left=start, height=0.62, color=colour, linewidth=0, zorder=2)
    if not places:
        axes.plot(
            curve.levels,
            [height + 0.36] * len(curve.levels),
            linestyle="none",
            marker="|",
            markersize=4,
            color=plotting.MUTED,
            zorder=3,
        )


def _pieces(
    curve: Curve, nats: np.ndarray, severity: Sequence[Sequence[Any]], places: dict[float, int]
) -> list[tuple[float, float, str]]:
    """(start, end, colour) of the parts of a bar: a cell per level on integer axes, thin slices otherwise."""
    words = [str(word) for word, _ in severity]

    def colour(loss: float) -> str:
        ratio = math.exp(loss) if loss < 700 else math.inf
        return plotting.SEVERITY[min(words.index(wording.severity(ratio, severity)), len(plotting.SEVERITY) - 1)]

    if places:
        return [
            (places[level] - 0.48, places[level] + 0.48, colour(loss))
            for level, loss in zip(curve.levels.tolist(), nats, strict=True)
        ]
    edges = np.linspace(curve.levels[0], curve.levels[-1], STEPS + 1)
    middles = (edges[1:] + edges[:-1]) / 2
    sign = 1.0 if curve.axis["rises"] else -1.0
    losses = np.interp(sign * middles, curve.positions, np.where(np.isfinite(nats), nats, 1e3))
    return [
        (start, end, colour(loss))
        for start, end, loss in zip(edges[:-1].tolist(), edges[1:].tolist(), losses.tolist(), strict=True)
    ]


def _marks(
    axes: Axes, height: int, rows: pd.DataFrame, criteria: Mapping[str, dict[str, Any]], places: dict[float, int]
) -> None:
    """A marker per KL criterion; on integer axes they stand beside each other in the last cell inside."""
    names = [name for name, criterion in criteria.items() if criterion["metric"] == "kl"]
    for place, (name, marker) in enumerate(zip(names, plotting.CRITERION_MARKERS, strict=False)):
        for row in tables.rows(rows[(rows.criterion == name) & (rows.state == thresholds.INSIDE)]):
            at = row.threshold
            if places:
                at = places[row.threshold] + 0.2 * (place - (len(names) - 1) / 2)
            else:
                ends = [plotting.finite_or(end, at) for end in (row.low, row.high)]
                axes.plot(ends, [height] * 2, color=MARK_INK, linewidth=1.2, zorder=4)
            axes.plot(
                at,
                height,
                marker=marker,
                markersize=6.5,
                markerfacecolor=MARK_PAPER,
                linestyle="none",
                markeredgecolor=MARK_INK,
                markeredgewidth=1.1,
                zorder=5,
            )


def _legend(drawn: Figure, criteria: Mapping[str, dict[str, Any]], severity: Sequence[Sequence[Any]]) -> None:
    handles: list[Any] = [
        Patch(facecolor=colour, label=str(word)) for (word, _), colour in zip(severity, plotting.SEVERITY, strict=False)
    ]
    handles += [
        Line2D(
            [],
            [],
            marker=marker,
            linestyle="none",
            markerfacecolor=MARK_PAPER,
            markeredgecolor=MARK_INK,
            label=wording.criterion(criterion),
        )
        for criterion, marker in zip(criteria.values(), plotting.CRITERION_MARKERS, strict=False)
        if criterion["metric"] == "kl"
    ]
    drawn.legend(
        handles=handles,
        loc="outside lower center",
        ncols=len(handles),
        fontsize=8,
        handletextpad=0.4,
        columnspacing=1.2,
        handlelength=1.3,
    )
