"""How much one model's perplexity moves with the protocol alone: a row per protocol, a panel per model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from hemorrhage.analysis import tables
from hemorrhage.reporting import plotting, wording

SCORED = {"all": "all scored", "second_half": "second half scored", "new": "new tokens scored"}


def draw(
    paths: Mapping[str, str],
    grid: dict[str, Any],
    settings: Mapping[str, Any],
    figure: Mapping[str, str],
    svg: str,
    png: str,
) -> None:
    """Write the figure of the protocols. Arguments: see the package; ``paths`` has ``protocols`` too."""
    table = tables.read(paths["protocols"])
    groups = tables.groups(table, "model", sort=True)
    height = 0.34 * len(table) + 1.1 * len(groups)
    with plotting.figure(len(groups), 1, (10.5, height), height_ratios=[len(rows) + 2 for _, rows in groups]) as (
        drawn,
        axes,
    ):
        for axis, (model, rows) in zip(axes[:, 0], groups, strict=True):
            _panel(axis, rows, figure.get("own", ""))
            axis.set_title(f"{model}: the same weights, other protocols")
        plotting.save(drawn, svg, png)


def label(row: Mapping[str, Any]) -> str:
    """Return a protocol in words, its name in front if it has one."""
    stride = "" if row["stride"] == row["window"] else f", stride {row['stride']}"
    front = ", BOS" if row["bos"] == "True" else ", one token before" if row["prefix"] == "previous" else ""
    words = f"{row['joining']}, {row['window']}{stride}{front}, {SCORED[row['scored']]}"
    return words if row["name"] == row["protocol"] else f"{row['name']}: {words}"


def _panel(axes: Axes, rows: pd.DataFrame, own: str) -> None:
    """One model's protocols in the order of the config; the study's own is filled and marked by a line."""
    lines = tables.dicts(rows)
    for place, row in enumerate(lines):
        mine = row["protocol"] == own
        colour = plotting.PALETTE[0] if mine else plotting.INK
        ends = [plotting.finite_or(row[end], row["value"]) for end in ("low", "high")]
        axes.plot(ends, [place] * 2, color=colour, linewidth=1.4, zorder=3)
        axes.plot(
            row["value"],
            place,
            marker="o",
            linestyle="none",
            color=colour,
            zorder=4,
            markerfacecolor=colour if mine else plotting.PAPER,
        )
        text = f"{wording.number(row['value'], 4)}   {row['n']} tokens"
        axes.annotate(
            text,
            (1, place),
            xycoords=("axes fraction", "data"),
            xytext=(8, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
        )
        if mine:
            axes.axvline(row["value"], color=plotting.MUTED, linewidth=0.9, linestyle=":", zorder=1)
    axes.set_yticks(range(len(lines)), [label(row) for row in lines])
    axes.set_ylim(len(lines) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("perplexity, 95 % over windows")
