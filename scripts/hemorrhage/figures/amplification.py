"""Amplification: how many tokens differ in free running for every choice that differs along a given text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from hemorrhage.analysis import tables
from hemorrhage.analysis.curves import REFERENCE, label
from hemorrhage.figures.decoding import text_rows, tick_label
from hemorrhage.reporting import plotting

SECTION = "Divergence"
CAPTION = (
    "Share of tokens that differ from the reference's text, over the share of choices that differ along the "
    "reference's greedy text, with 95 % intervals over prompts. Left: over the decoder's own choices. Right: "
    "over those of greedy search, the same for every decoder. Right of 1 a decoder makes more of a wrong "
    "choice than the one token."
)
PANELS = {"amplification": "÷ the decoder's own differing choices", "amplification_common": "÷ those of greedy search"}


def draw(
    paths: Mapping[str, str],
    grid: dict[str, Any],
    settings: Mapping[str, Any],
    figure: Mapping[str, str],
    svg: str,
    png: str,
) -> None:
    """Write the figure: a row per model, in it decoders as rows and variants as markers. Arguments: see the package."""
    text = text_rows(tables.read(paths["metrics"]))
    text = text[text.metric.isin(list(PANELS)) & (text.variant != REFERENCE)]
    if text.empty:
        plotting.message(svg, png, "Nothing to amplify: no variant chose another token than the reference.")
        return
    models, variants = sorted(text.model.unique()), list(dict.fromkeys(text.variant))
    decoders = sorted(text.decoder.unique())
    tall = (0.14 * len(variants) + 0.15) * len(decoders) * len(models) + 1.6
    with plotting.figure(len(models), 2, (10.5, tall), sharey="row") as (drawn, axes):
        for row, model in zip(axes, models, strict=True):
            for axis, (metric, caption) in zip(row, PANELS.items(), strict=True):
                _panel(axis, text[(text.model == model) & (text.metric == metric)], decoders, variants)
                axis.set_xlabel(caption)
                axis.set_yticks(range(len(decoders)), [tick_label(decoder) for decoder in decoders])
                axis.set_ylim(len(decoders) - 0.4, -0.6)
            row[0].set_title(model)
        handles = [Line2D([], [], linestyle="none", **_style(place)) for place in range(len(variants))]
        drawn.legend(
            handles,
            [label(variant, grid) for variant in variants],
            loc="outside lower center",
            ncols=min(4, len(handles)),
            fontsize=8,
        )
        plotting.save(drawn, svg, png)


def _panel(axes: Axes, rows: pd.DataFrame, decoders: list[str], variants: list[str]) -> None:
    for place, variant in enumerate(variants):
        shift = 0.8 * ((place + 0.5) / len(variants) - 0.5)
        points = rows[(rows.variant == variant) & np.isfinite(rows.value) & (rows.value > 0)]
        heights = [decoders.index(decoder) + shift for decoder in points.decoder]
        style = _style(place)
        low = points.low.where(points.low > 0, points.value)
        axes.hlines(
            heights, low, points.high.where(np.isfinite(points.high), points.value), color=style["color"], linewidth=1
        )
        axes.plot(points.value, heights, linestyle="none", **style)
    axes.axvline(1, color=plotting.MUTED, linewidth=1, zorder=1)
    axes.set_xscale("log")
    plotting.plain_log(axes.xaxis)
    axes.grid(axis="y", visible=False)


def _style(place: int) -> dict[str, Any]:
    return {
        "color": plotting.PALETTE[place % len(plotting.PALETTE)],
        "marker": plotting.MARKERS[place % len(plotting.MARKERS)],
        "markersize": 4,
    }
