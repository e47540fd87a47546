"""Two steps at once: the surface of KL with lines of equal damage, and whether damage adds up."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hemorrhage.analysis import combinations, tables
from hemorrhage.analysis.curves import REFERENCE, label
from hemorrhage.planning.combinations import Combination, found
from hemorrhage.reporting import combination_findings, heatmaps, plotting, wording

SECTION = "Combinations"
CAPTION = (
    "Left: KL of two steps together, with lines of equal damage. Right: ΔNLL of both together against the sum of the "
    "ΔNLL of each alone, with 95 % intervals of the difference, paired by window; on the line damage adds up, and it "
    f"is called the sum where the whole interval lies in the grey band ({combinations.MARGIN:g} nat, or "
    f"{100 * combinations.SHARE:g} % of the sum)."
)
LARGEST = 50.0  # nats; what is beyond has the darkest colour
PLACES = {combinations.MORE: 1, combinations.LESS: 2, combinations.SAME: 0, combinations.OPEN: 3}


def draw(
    paths: Mapping[str, str],
    grid: dict[str, Any],
    settings: Mapping[str, Any],
    figure: Mapping[str, str],
    svg: str,
    png: str,
) -> None:
    """Write the surfaces: a row of two panels per model and pair of steps. Arguments: see the package."""
    metrics, table = tables.read(paths["metrics"]), combinations.read(paths["combinations"])
    kl = metrics[(metrics.probe == "fidelity") & (metrics.metric == "kl")]
    shown = [
        (model, pair)
        for model in sorted(kl.model.unique())
        for pair in found(grid)
        if set(pair.variants.values()) & set(kl[kl.model == model].variant)
    ]
    if not shown:
        plotting.message(svg, png, "No grid of two steps with two levels each was measured.")
        return
    with plotting.figure(len(shown), 2, (10.5, 4.3 * len(shown))) as (drawn, axes):
        for (left, right), (model, pair) in zip(axes, shown, strict=True):
            values = kl[kl.model == model].drop_duplicates("variant").set_index("variant").value
            _surface(drawn, left, pair, values, settings["criteria"], grid)
            left.set_title(f"{model}: KL(reference ‖ variant)")
            rows = table[(table.model == model) & (table["first"] == pair.steps[0]) & (table.second == pair.steps[1])]
            _additivity(right, rows)
        plotting.save(drawn, svg, png)


def surface(pair: Combination, values: pd.Series) -> tuple[list[float | None], list[float | None], np.ndarray]:
    """Return (levels of the second step, levels of the first, KL [second, first]); None is a step left out.

    Args:
        pair: the grid.
        values: KL by slug.
    """
    axes = zip(pair.levels, pair.singles[::-1], strict=True)
    across, up = (_levels(levels, bool(set(singles.values()) & set(values.index))) for levels, singles in axes)

    def slug(first: float | None, second: float | None) -> str | None:
        if first is None and second is None:
            return REFERENCE
        if first is None:
            return pair.singles[1].get(second or 0.0)
        return pair.singles[0].get(first) if second is None else pair.variants.get((first, second))

    cells = [[float(values.get(slug(first, second) or "", math.nan)) for first in across] for second in up]
    return up, across, np.array(cells)


def _levels(levels: Sequence[float], with_none: bool) -> list[float | None]:
    return [*([None] if with_none else []), *levels]


def _surface(
    drawn: Figure, axes: Axes, pair: Combination, values: pd.Series, criteria: Mapping[str, Any], study: dict[str, Any]
) -> None:
    up, across, cells = surface(pair, values)
    height = np.where(np.isposinf(cells), LARGEST, np.minimum(cells, LARGEST))
    colours = heatmaps.scale(height, logarithmic=True)
    floor = float(colours.vmin or 1e-6)
    mesh = axes.imshow(
        np.ma.masked_invalid(np.maximum(height, floor)),
        norm=colours,
        cmap=heatmaps.COLOURS,
        origin="lower",
        aspect="auto",
    )
    axes.grid(visible=False)
    axes.set_facecolor(plotting.PAPER)
    for (row, column), value in np.ndenumerate(cells):
        if not math.isnan(value):
            dark = value > math.sqrt(floor * float(colours.vmax or 1.0)) * 3
            axes.text(
                column,
                row,
                wording.number(value, 2),
                ha="center",
                va="center",
                fontsize=7.5,
                color="#fefefe" if dark else "#101010",
            )
    lines = sorted(
        float(criterion["at"]) for criterion in criteria.values() if criterion["metric"] == "kl" and "at" in criterion
    )
    logs = np.ma.masked_invalid(np.log(np.maximum(height, floor * 1e-3)))  # no line through a cell that is missing
    inside = [at for at in lines if logs.min() < math.log(at) < logs.max()]
    if inside and min(cells.shape) > 1:
        drawn_lines = axes.contour(
            logs, levels=[math.log(at) for at in inside], colors="#101010", linewidths=1.3, linestyles="solid"
        )
        axes.clabel(drawn_lines, fmt={math.log(at): f"{at:g}" for at in inside}, fontsize=8)
    for place, (levels, name) in enumerate(((across, pair.steps[0]), (up, pair.steps[1]))):
        ticks = ["none" if level is None else wording.level(level) for level in levels]
        (axes.set_xticks if place == 0 else axes.set_yticks)(range(len(levels)), ticks)
        text = f"{label(name, study)}: {wording.damage_axis(pair.axes[place])}"
        (axes.set_xlabel if place == 0 else axes.set_ylabel)(text)
    drawn.colorbar(mesh, ax=axes, label="nats").outline.set_visible(False)


def _additivity(axes: Axes, rows: pd.DataFrame) -> None:
    """ΔNLL together against the sum, with the paired interval of the difference; what is infinite is counted only."""
    counts = combination_findings.counted(rows)
    rows = rows[np.isfinite(rows.together) & np.isfinite(rows["sum"])]
    axes.set_title("does damage add up?")
    if rows.empty:
        axes.text(0.5, 0.5, "The steps were not measured alone.", ha="center", color=plotting.MUTED)
        axes.axis("off")
        return
    top = 1.08 * max(float(rows.together.max()), float(rows["sum"].max()), 1e-9)
    low = min(0.0, float(rows.together.min()), float(rows["sum"].min()))
    axes.plot([low, top], [low, top], color=plotting.MUTED, linestyle="--", linewidth=1)
    line = np.linspace(low, top, 100)
    reach = np.array([combinations.margin(total) for total in line])
    axes.fill_between(line, line - reach, line + reach, color=plotting.MUTED, alpha=0.15, linewidth=0)
    for verdict, group in tables.groups(rows, "verdict"):
        ends = [
            np.nan_to_num(group.difference - group.difference_low),
            np.nan_to_num(group.difference_high - group.difference),
        ]
        place = PLACES[verdict]
        axes.errorbar(
            group["sum"],
            group.together,
            yerr=ends,
            linestyle="none",
            capsize=3,
            linewidth=1.2,
            marker=plotting.MARKERS[place],
            color=plotting.PALETTE[place],
            label=verdict,
        )
    axes.set_xlabel("ΔNLL of each alone, summed (nats)")
    axes.set_ylabel("ΔNLL of both together (nats)")
    axes.legend(loc="upper left", fontsize=8)
    axes.annotate(
        counts.replace(", ", "\n"),
        (0.99, 0.02),
        xycoords="axes fraction",
        ha="right",
        fontsize=7.5,
        color=plotting.MUTED,
    )
