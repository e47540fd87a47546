"""What the calibration text does: damage by number of sequences, a line per text and cut of it, a panel per method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator

from hemorrhage.analysis import calibrations, orderings
from hemorrhage.analysis.calibrations import Line, Point
from hemorrhage.analysis.orderings import Measured
from hemorrhage.reporting import plotting

SECTION = "Calibration"
CAPTION = (
    "The same method at the same level, calibrated on other articles of the text that it is evaluated on and on "
    "another text, by the number of calibration sequences; bars are 95 % intervals over the evaluation windows. Along "
    "a line only the number differs: sets that join articles otherwise, or are cut into other lengths, stand by "
    "themselves. Both axes are logarithmic."
)
COLUMNS = 3
JOININGS = {"article": "an article each", "contiguous": "articles in a row"}


def draw(
    paths: Mapping[str, str],
    grid: dict[str, Any],
    settings: Mapping[str, Any],
    figure: Mapping[str, str],
    svg: str,
    png: str,
) -> None:
    """Write the panels of every model. Arguments: see the package."""
    models = orderings.of_models(paths["metrics"], paths["windows"], grid)
    panels = [
        (measured, name, list(points))
        for measured in models
        for name, points in groupby(calibrations.points(measured), key=lambda point: point.group)
    ]
    if not panels:
        plotting.message(svg, png, "No method was calibrated on two sets.")
        return
    named = lines([point for _, _, points in panels for point in points])
    columns = min(COLUMNS, len(panels))
    rows = -(-len(panels) // columns)
    with plotting.figure(rows, columns, (10.5, 3.6 * rows), sharey=True) as (drawn, axes):
        for axis in axes.flat[len(panels) :]:
            axis.axis("off")
        for axis, (measured, name, points) in zip(axes.flat, panels, strict=False):
            _panel(axis, measured, points, named)
            axis.set_title(f"{measured.model}: {name}" if len(models) > 1 else name)
        for axis in axes[:, 0]:
            axis.set_ylabel("KL(reference ‖ variant), nats")
        shown = {
            text: handle for axis in axes.flat for handle, text in zip(*axis.get_legend_handles_labels(), strict=True)
        }
        axes.flat[0].legend([shown[text] for text in named.values()], named.values(), fontsize=8)
        plotting.save(drawn, svg, png)


def lines(points: Sequence[Point]) -> dict[Line, str]:
    """Return every line of these points with its name, in order: its text, and how it was cut where that differs."""
    found = sorted({point.line for point in points})
    joinings, windows = ({line[place] for line in found} for place in (2, 3))
    names = {}
    for far, text, joining, window in found:
        words = [text, "far" if far else "near"]
        words += [JOININGS.get(joining, joining)] if len(joinings) > 1 else []
        words += [f"{window} tokens"] if len(windows) > 1 else []
        names[far, text, joining, window] = ", ".join(words)
    return names


def _panel(axes: Axes, measured: Measured, points: Sequence[Point], named: Mapping[Line, str]) -> None:
    for line, found in groupby(points, key=lambda point: point.line):
        own, place = list(found), list(named).index(line)  # a line looks the same in every panel
        rows = [measured.value(point.slug) for point in own]
        values = [row["value"] for row in rows]
        ends = [[plotting.finite_or(abs(row["value"] - row[end]), 0.0) for row in rows] for end in ("low", "high")]
        axes.errorbar(
            [point.sequences * 1.03 ** (place - 0.5) for point in own],  # beside each other, not on each other
            values,
            yerr=ends,
            color=plotting.PALETTE[place % len(plotting.PALETTE)],
            marker=plotting.MARKERS[place % len(plotting.MARKERS)],
            linestyle="-" if own[0].near else "--",
            linewidth=1.4,
            capsize=3,
            label=named[line],
        )
    axes.set_xscale("log")
    axes.set_yscale("log")
    plotting.plain_log(axes.yaxis)
    numbers = sorted({point.sequences for point in points})
    axes.set_xticks(numbers, [str(number) for number in numbers])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("calibration sequences")
