"""Half of the weights at zero, anywhere or in a pattern: the damage of every pruner side by side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes

from hemorrhage.analysis import orderings
from hemorrhage.analysis.orderings import Measured
from hemorrhage.reporting import plotting

SECTION = "Patterns"
CAPTION = (
    "The same share of zeros (1:4 has three quarters) with and without a pattern that hardware can use; n:m keeps n of "
    "every m neighbours in a row. Bars are 95 % intervals over windows."
)
ORDER = ("None", "4:8", "2:4", "1:4")
NAMES = {"None": "anywhere, 50 %"}


def draw(
    paths: Mapping[str, str],
    grid: dict[str, Any],
    settings: Mapping[str, Any],
    figure: Mapping[str, str],
    svg: str,
    png: str,
) -> None:
    """Write a panel per model. Arguments: see the package."""
    models = orderings.of_models(paths["metrics"], paths["windows"], grid)
    shown = [(measured, found) for measured in models if (found := patterns(measured))]
    if not shown:
        plotting.message(svg, png, "No pruner was measured with a pattern.")
        return
    with plotting.figure(len(shown), 1, (10.5, 0.42 * sum(len(found) + 3 for _, found in shown))) as (drawn, axes):
        for axis, (measured, found) in zip(axes[:, 0], shown, strict=True):
            _panel(axis, measured, found)
            axis.set_title(f"{measured.model}: a pattern has its price")
        plotting.save(drawn, svg, png)


def patterns(measured: Measured) -> dict[str, dict[str, str]]:
    """Return arm -> pattern -> slug of every pruner that was measured with several, the least damaged first."""
    kept = {arm: own for arm, own in measured.by_pattern().items() if len(own) > 1}
    return dict(
        sorted(kept.items(), key=lambda entry: min(measured.value(slug)["value"] for slug in entry[1].values()))
    )


def _panel(axes: Axes, measured: Measured, found: Mapping[str, Mapping[str, str]]) -> None:
    known = [pattern for pattern in ORDER if any(pattern in own for own in found.values())]
    known += sorted({pattern for own in found.values() for pattern in own} - set(known))
    for place, pattern in enumerate(known):
        rows = [(height, measured.value(own[pattern])) for height, own in enumerate(found.values()) if pattern in own]
        values = [row["value"] for _, row in rows]
        ends = [[plotting.finite_or(abs(row["value"] - row[end]), 0.0) for _, row in rows] for end in ("low", "high")]
        axes.errorbar(
            values,
            [height + 0.16 * (place - (len(known) - 1) / 2) for height, _ in rows],
            xerr=ends,
            linestyle="none",
            marker=plotting.MARKERS[place % len(plotting.MARKERS)],
            color=plotting.PALETTE[place % len(plotting.PALETTE)],
            capsize=2,
            linewidth=1.2,
            label=NAMES.get(pattern, pattern),
        )
    axes.set_yticks(range(len(found)), [arm.replace("_", " ") for arm in found])
    axes.set_ylim(len(found) - 0.5, -0.5)
    axes.set_xscale("log")
    plotting.plain_log(axes.xaxis)
    axes.set_xlabel("KL(reference ‖ variant), nats")
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=8)
