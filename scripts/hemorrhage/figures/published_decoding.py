"""What the choice of a decoder does: the published scores, and text and task scores of this study's reference."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from hemorrhage.analysis import tables
from hemorrhage.analysis.curves import REFERENCE
from hemorrhage.decoding import published_decoding, task_scores
from hemorrhage.figures.decoding import text_rows, tick_label
from hemorrhage.reporting import plotting

SECTION = "Divergence"
CAPTION = (
    "Left: published scores of nine models of 7 to 14 billion parameters; a point is the range over twelve "
    "decoders, (best − worst) / worst. Beside it the reference of this study: how many tokens another decoder "
    "leaves as greedy search writes them, with 95 % intervals over prompts, and, where the study has tasks for its "
    "decoders, the score of every decoder with 95 % intervals over items; the legend gives the same range of them. "
    "Few items make wide intervals, and the range of noise alone is not 0. The panels cannot be compared number by "
    "number."
)


def draw(
    paths: Mapping[str, str],
    grid: dict[str, Any],
    settings: Mapping[str, Any],
    figure: Mapping[str, str],
    svg: str,
    png: str,
) -> None:
    """Write the figure: published ranges beside the decoder effect of the reference. Arguments: see the package."""
    ranges = published_decoding.relative_range(published_decoding.read(paths["paper_decoding"]))
    metrics = tables.read(paths["metrics"])
    text = text_rows(metrics)
    own = text[(text.variant == REFERENCE) & (text.metric == "decoder_effect.token_agreement")]
    scores = task_scores.rows(metrics)
    scores = scores[scores.variant == REFERENCE]
    panels = 2 + scores.model.nunique()
    height = 1.4 + 0.26 * max(len(ranges), len(own), scores.decoder.nunique())
    with plotting.figure(1, panels, (1.5 + 4.5 * panels, height)) as (drawn, axes):
        _published(axes[0, 0], ranges)
        _own(axes[0, 1], own.sort_values(["value", "decoder"], kind="stable"))
        for axis, (model, group) in zip(axes[0, 2:], tables.groups(scores, "model"), strict=True):
            _scores(axis, group, model if scores.model.nunique() > 1 else "")
        plotting.save(drawn, svg, png)


def _published(axes: Axes, ranges: pd.DataFrame) -> None:
    ranges = ranges.sort_values("gsm8k")
    for place, dataset in enumerate(ranges.columns):
        axes.plot(
            100 * ranges[dataset],
            range(len(ranges)),
            linestyle="none",
            marker=plotting.MARKERS[place],
            color=plotting.PALETTE[place],
            label=dataset,
        )
    axes.set_yticks(range(len(ranges)), list(ranges.index))
    axes.set_xlabel("published: range over decoders, % of the worst")
    axes.set_xscale("log")
    axes.legend(fontsize=8)


def _own(axes: Axes, rows: pd.DataFrame) -> None:
    heights = range(len(rows))
    axes.hlines(heights, rows.low, rows.high, color=plotting.PALETTE[0], linewidth=1.2)
    axes.plot(rows.value, heights, linestyle="none", marker="o", color=plotting.PALETTE[0])
    several = rows.model.nunique() > 1
    axes.set_yticks(
        heights, [(f"{row.model}: " if several else "") + tick_label(row.decoder) for row in tables.rows(rows)]
    )
    axes.set_xlabel("this study: tokens equal to greedy search, share")
    axes.set_xlim(left=0)


def _scores(axes: Axes, scores: pd.DataFrame, title: str) -> None:
    """The score of every decoder, the tasks beside each other; decoders by their mean over tasks."""
    order = list(scores.groupby("decoder").value.mean().sort_index().sort_values(kind="stable").index)
    spread = task_scores.ranges(scores)
    tasks = sorted(scores.dataset.unique())
    for place, task in enumerate(tasks):
        rows = scores[scores.dataset == task]
        shift = 0.24 * (place - (len(tasks) - 1) / 2)
        heights = [order.index(decoder) + shift for decoder in rows.decoder]
        colour = plotting.PALETTE[place % len(plotting.PALETTE)]
        axes.hlines(heights, 100 * rows.low, 100 * rows.high, color=colour, linewidth=1.2)
        found = spread[task].iloc[0] if task in spread else math.nan
        words = f"range {100 * found:.0f} % of the worst" if math.isfinite(found) else "the worst is 0"
        axes.plot(
            100 * rows.value,
            heights,
            linestyle="none",
            marker=plotting.MARKERS[place % len(plotting.MARKERS)],
            color=colour,
            label=f"{task}, {int(rows.blocks.max())} items: {words}",
        )
    axes.set_yticks(range(len(order)), [tick_label(decoder) for decoder in order])
    axes.set_xlabel("this study: score, %")
    axes.set_xlim(0, 100)
    if title:
        axes.set_title(title)
    axes.legend(fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1.0))
