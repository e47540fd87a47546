"""What the choice of a decoder does: the published scores, the text of this study's reference and its task scores."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from hemorrhage.analysis import tables
from hemorrhage.analysis.curves import REFERENCE, label
from hemorrhage.decoding import published_decoding, task_scores
from hemorrhage.figures.decoding import decoder_label, text_rows, tick_label
from hemorrhage.reporting import plotting

SECTION = "Divergence"
CAPTION = (
    "Left: published scores of nine models of 7 to 14 billion parameters; a point is the range over twelve "
    "decoders, (best − worst) / worst. Beside it the reference of this study: how many tokens another decoder "
    "leaves as greedy search writes them, with 95 % intervals over prompts, and, where the study has tasks for its "
    "decoders, the score of every variant by every decoder with 95 % intervals over items, and the same range beside "
    "the variant's name. Few items make wide intervals, and the range of noise alone is not 0. The panels cannot be "
    "compared number by number."
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
    tasks = tables.groups(scores, ["model", "dataset"])
    spread = task_scores.ranges(scores)
    tallest = max((0.12 * group.decoder.nunique() + 0.2) * group.variant.nunique() for _, group in [*tasks, ("", own)])
    height = 2 + max(0.26 * len(ranges), 0.26 * len(own), tallest)
    with plotting.figure(1, 2 + len(tasks), (10.5 + 4.5 * len(tasks), height)) as (drawn, axes):
        _published(axes[0, 0], ranges)
        _own(axes[0, 1], own.sort_values(["value", "decoder"], kind="stable"))
        for axis, ((model, task), group) in zip(axes[0, 2:], tasks, strict=True):
            _scores(axis, group, spread.get(task, pd.Series(dtype=float)), grid)
            axis.set_title(f"{model}: {task}, {int(group.blocks.max())} items")
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


def _scores(axes: Axes, scores: pd.DataFrame, spread: pd.Series, grid: dict[str, Any]) -> None:
    """The scores of a task, a row per variant and a colour per decoder, the reference first, then the best."""
    means = scores.groupby("variant").value.mean()
    order = sorted(means.index, key=lambda variant: (variant != REFERENCE, -means[variant], variant))
    decoders = sorted(scores.decoder.unique())
    for place, decoder in enumerate(decoders):
        rows = scores[scores.decoder == decoder]
        heights = [order.index(variant) + 0.8 * ((place + 0.5) / len(decoders) - 0.5) for variant in rows.variant]
        colour = plotting.PALETTE[place % len(plotting.PALETTE)]
        axes.hlines(heights, 100 * rows.low, 100 * rows.high, color=colour, linewidth=1.1)
        axes.plot(
            100 * rows.value,
            heights,
            linestyle="none",
            marker=plotting.MARKERS[place % len(plotting.MARKERS)],
            markersize=4.5,
            color=colour,
            label=decoder_label(decoder),
        )
    by_variant = scores.groupby("variant").decoder.nunique()
    model = scores.model.iloc[0]
    names = [
        label(variant, grid) + (f"\n{_range(spread[(model, variant)])}" if by_variant[variant] > 1 else "")
        for variant in order
    ]
    axes.set_yticks(range(len(order)), names)
    axes.set_ylim(len(order) - 0.5, -0.5)
    axes.set_xlabel("this study: score, %")
    axes.set_xlim(-2, 102)
    axes.grid(axis="y", visible=False)
    axes.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=3)


def _range(share: float) -> str:
    return "the worst is 0" if math.isnan(share) else f"range {100 * share:.0f} %"
