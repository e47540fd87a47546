"""What the choice of a decoder does: the published scores, and the text of this study's reference."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from hemorrhage.analysis import tables
from hemorrhage.analysis.curves import REFERENCE
from hemorrhage.decoding import published_decoding
from hemorrhage.figures.decoding import decoder_label, text_rows
from hemorrhage.reporting import plotting

SECTION = "Divergence"
CAPTION = (
    "Left: published scores of nine models of 7 to 14 billion parameters; a point is the range over twelve "
    "decoders, (best − worst) / worst. Right: the reference of this study; how many tokens another decoder "
    "leaves as greedy search writes them, with 95 % intervals over prompts. The two cannot be compared number"
    " by number."
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
    text = text_rows(tables.read(paths["metrics"]))
    own = text[(text.variant == REFERENCE) & (text.metric == "decoder_effect.token_agreement")]
    with plotting.figure(1, 2, (10.5, 1.4 + 0.26 * max(len(ranges), len(own)))) as (drawn, axes):
        _published(axes[0, 0], ranges)
        _own(axes[0, 1], own.sort_values(["value", "decoder"], kind="stable"))
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
        heights, [(f"{row.model}: " if several else "") + decoder_label(row.decoder) for row in tables.rows(rows)]
    )
    axes.set_xlabel("this study: tokens equal to greedy search, share")
    axes.set_xlim(left=0)
