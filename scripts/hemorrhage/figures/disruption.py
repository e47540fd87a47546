"""Disruption against damage: every variant by how far its attention moved and how far its predictions did."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes

from hemorrhage.analysis import correlations, tables
from hemorrhage.analysis.correlations import Correlation
from hemorrhage.analysis.curves import label
from hemorrhage.reporting import plotting, wording

X, Y = ("attention", "disruption"), ("fidelity", "kl")
LABELLED = 14  # variants whose names are written; more would lie on each other
CAPTION = (
    "Each point is a variant, each line a sweep: how far its attention maps are from the reference's (Jensen-Shannon "
    "divergence over ln 2, mean over blocks, heads and tokens) and how far its predictions are (KL). Variants that "
    "change neither are left out."
)


def draw(
    paths: Mapping[str, str],
    grid: dict[str, Any],
    settings: Mapping[str, Any],
    figure: Mapping[str, str],
    svg: str,
    png: str,
) -> None:
    """Write the scatter: a panel per model. Arguments: see the package."""
    found = correlations.pairs(tables.read(paths["metrics"]), X, Y)
    if not found:
        plotting.message(svg, png, f"Fewer than {correlations.FEWEST} variants have both attention disruption and KL.")
        return
    with plotting.figure(len(found), 1, (10.5, 5.2 * len(found))) as (drawn, axes):
        for axis, correlation in zip(axes[:, 0], found, strict=True):
            _panel(axis, correlation, grid)
        plotting.save(drawn, svg, png)


def _panel(axes: Axes, found: Correlation, grid: dict[str, Any]) -> None:
    points = found.points
    methods = list(dict.fromkeys(points.sort_values("method").method))
    for place, method in enumerate(methods):
        own = points[points.method == method]
        for turn, (_, sweep) in enumerate(tables.groups(own.sort_values("x"), "sweep")):  # arms are lines of their own
            axes.plot(
                sweep.x,
                sweep.y,
                color=plotting.PALETTE[place % len(plotting.PALETTE)],
                linewidth=0.8,
                marker=plotting.MARKERS[place % len(plotting.MARKERS)],
                label=None if turn else str(method).replace("_", " "),
            )
    for row in tables.rows(_extremes(points, methods)):
        axes.annotate(
            label(row.variant, grid),
            (row.x, row.y),
            xytext=(5, 3),
            textcoords="offset points",
            fontsize=7,
            color=plotting.MUTED,
        )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("disruption of attention, 0 to 1")
    axes.set_ylabel("KL(reference ‖ variant), nats")
    axes.set_title(
        f"{found.model}: disruption and damage, rank correlation {wording.number(found.rank, 2)} "
        f"{wording.interval(found.low, found.high, 2)}"
    )
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=8)


def _extremes(points, methods: list[str]):
    """The last variant of every method, as far as names find room."""
    last = points.sort_values("x").groupby("method").tail(1)
    return last[last.method.isin(methods[:LABELLED])]
