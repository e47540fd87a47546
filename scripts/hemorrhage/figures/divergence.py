"""Divergence against position: the share of prompts whose text still equals the reference's, token by token."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from hemorrhage.analysis import tables
from hemorrhage.analysis.curves import REFERENCE, label
from hemorrhage.figures.decoding import decoder_label
from hemorrhage.reporting import plotting

SECTION = "Divergence"
CAPTION = (
    "Share of prompts whose first n tokens equal those of the reference with the same decoder and the same "
    "random numbers; bands are 95 % intervals over prompts. Dotted: the reference against itself with another"
    " seed."
)
COLUMNS = 4
TITLE_WIDTH = 32  # characters above a panel before a line is broken


def draw(
    paths: Mapping[str, str],
    grid: dict[str, Any],
    settings: Mapping[str, Any],
    figure: Mapping[str, str],
    svg: str,
    png: str,
) -> None:
    """Write the figure: one panel per model and decoder, one line per variant. Arguments: see the package."""
    table = tables.read(paths["divergence"])
    table = table[(table.variant != REFERENCE) | (table.effect == "seed_floor")]
    variants = [variant for variant in dict.fromkeys(table.variant) if variant != REFERENCE]
    if not variants:
        plotting.message(svg, png, "No variant generated text in this study.")
        return
    panels = tables.groups(table, ["model", "decoder"])
    columns = min(COLUMNS, len(panels))
    rows = math.ceil(len(panels) / columns)
    with plotting.figure(rows, columns, (2.75 * columns, 2.5 * rows + 1), sharex=True, sharey=True) as (drawn, axes):
        for axis, ((model, decoder), group) in zip(axes.flat, panels, strict=False):
            _panel(axis, group, variants)
            owner = f"{model}: " if table.model.nunique() > 1 else ""
            axis.set_title(textwrap.fill(owner + decoder_label(decoder), TITLE_WIDTH), fontsize=8.5)
            axis.set_xlabel("tokens n")
        for axis in axes.flat[len(panels) :]:
            axis.set_visible(False)
        drawn.supylabel("share of prompts still equal", fontsize=9)
        handles = [Line2D([], [], **_style(place)) for place in range(len(variants))]
        names = [label(variant, grid) for variant in variants]
        drawn.legend(handles, names, loc="outside lower center", ncols=min(4, len(handles)), fontsize=8)
        plotting.save(drawn, svg, png)


def _panel(axes: Axes, group: pd.DataFrame, variants: list[str]) -> None:
    for place, variant in enumerate(variants):
        line = _line(group[(group.variant == variant) & (group.effect == "weight_effect")])
        style = _style(place)
        axes.fill_between(line.place, line.low, line.high, color=style["color"], alpha=0.12, linewidth=0, step="post")
        axes.step(line.place, line.value, where="post", **style)
    floor = _line(group[group.effect == "seed_floor"])
    axes.step(floor.place, floor.value, where="post", color=plotting.MUTED, linestyle=":", linewidth=1.3)
    axes.set_ylim(-0.03, 1.03)
    axes.set_xlim(left=0)


def _line(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.assign(place=rows.place.astype(int)).sort_values("place")


def _style(place: int) -> dict[str, Any]:
    """Colours first, then the same colours with another line."""
    count = len(plotting.PALETTE)
    return {
        "color": plotting.PALETTE[place % count],
        "linestyle": ("-", "--", "-.")[place // count % 3],
        "linewidth": 1.4,
    }
