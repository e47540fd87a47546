"""Generated text: what modified weights change in it, beside what the decoder changes on its own."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from hemorrhage import plugins
from hemorrhage.analysis import tables
from hemorrhage.analysis.curves import REFERENCE, label
from hemorrhage.reporting import plotting

PREFIX = "text."
PANELS = {
    "token_agreement": "tokens equal to the compared text, share",
    "first_divergence": "tokens before the first difference",
}


def draw(
    paths: Mapping[str, str],
    grid: dict[str, Any],
    settings: Mapping[str, Any],
    figure: Mapping[str, str],
    svg: str,
    png: str,
) -> None:
    """Write the decoding: a row per model, token agreement and first divergence. Arguments: see the package."""
    text = text_rows(tables.read(paths["metrics"]))
    if text.empty:
        plotting.message(svg, png, "No text was generated in this study.")
        return
    models = sorted(text.model.unique())
    tallest = max(text[text.model == model].variant.nunique() for model in models)
    height = max(0.3, 0.07 * text.decoder.nunique()) * tallest + 1.7
    with plotting.figure(len(models), 2, (10.5, height * len(models)), sharey="row") as (drawn, axes):
        decoders = sorted(text.decoder.unique())
        for row, model in zip(axes, models, strict=True):
            shown = text[text.model == model]
            order = ranking(shown)
            for axis, (measure, caption) in zip(row, PANELS.items(), strict=True):
                _panel(axis, shown[shown.measure == measure], order, decoders)
                axis.set_xlabel(caption)
                axis.set_yticks(range(len(order)), [label(variant, grid) for variant in order])
                axis.set_ylim(len(order) - 0.4, -0.6)
            row[0].set_title(model)
        handles, names = _legend(decoders)
        drawn.legend(handles, names, loc="outside lower center", ncols=min(3, len(handles)), fontsize=8)
        plotting.save(drawn, svg, png)


def text_rows(metrics: pd.DataFrame) -> pd.DataFrame:
    """Return the text metrics, each variant once, with columns decoder, effect and measure."""
    rows = metrics[metrics.probe.str.startswith(PREFIX)].drop_duplicates(["model", "variant", "probe", "metric"]).copy()
    rows["decoder"] = rows.probe.str.removeprefix(PREFIX)
    parts = rows.metric.str.partition(".")
    rows["effect"], rows["measure"] = (parts[0], parts[2]) if len(rows) else ("", "")
    return rows


def ranking(text: pd.DataFrame) -> list[str]:
    """Return the variants of one model from the most to the least faithful text, the reference first."""
    weight = text[(text.effect == "weight_effect") & (text.measure == "token_agreement")]
    means = weight.groupby("variant").value.mean()
    rest = sorted(
        (slug for slug in text.variant.unique() if slug != REFERENCE), key=lambda slug: (-means.get(slug, -1.0), slug)
    )
    return [slug for slug in [REFERENCE] if (text.variant == slug).any()] + rest


def _panel(axes: Axes, text: pd.DataFrame, order: list[str], decoders: list[str]) -> None:
    places = {variant: place for place, variant in enumerate(order)}
    for place, decoder in enumerate(decoders):
        colour = plotting.PALETTE[place % len(plotting.PALETTE)]
        shift = min(0.22, 0.8 / len(decoders)) * (place - (len(decoders) - 1) / 2)
        rows = text[text.decoder == decoder]
        for effect, filled in (("weight_effect", True), ("decoder_effect", False)):
            points = rows[rows.effect == effect]
            if effect == "decoder_effect" and decoder == "greedy":
                continue  # greedy is what the other decoders are compared with
            heights = [places[variant] + shift for variant in points.variant]
            if filled:
                axes.hlines(heights, points.low, points.high, color=colour, linewidth=1.2, zorder=2)
            axes.plot(
                points.value,
                heights,
                linestyle="none",
                marker=plotting.MARKERS[place % len(plotting.MARKERS)],
                color=colour,
                markerfacecolor=colour if filled else plotting.PAPER,
                zorder=3,
            )
        floor = rows[(rows.effect == "seed_floor") & (rows.variant == REFERENCE)]
        if len(floor) and decoder != "greedy":
            axes.axvline(float(floor.value.iloc[0]), color=colour, linestyle=":", linewidth=1.2, zorder=1)
    axes.set_xlim(left=0)
    axes.grid(axis="y", visible=False)


def _legend(decoders: list[str]) -> tuple[list[Line2D], list[str]]:
    handles, names = [], []
    for place, decoder in enumerate(decoders):
        colour = plotting.PALETTE[place % len(plotting.PALETTE)]
        marker = plotting.MARKERS[place % len(plotting.MARKERS)]
        style: dict[str, Any] = {"color": colour, "marker": marker, "linewidth": 1.2}
        handles.append(Line2D([], [], **style))
        names.append(f"{decoder_label(decoder)}: effect of the weights")
        if decoder != "greedy":
            handles.append(Line2D([], [], **{**style, "linestyle": "none", "markerfacecolor": plotting.PAPER}))
            names.append("effect of the decoder")
            handles.append(Line2D([], [], color=colour, linestyle=":", linewidth=1.2))
            names.append("another seed")
    return handles, names


def decoder_label(slug: str) -> str:
    """Return a decoder's slug for people: ``temperature_temperature~0.7`` becomes ``temperature 0.7``."""
    known = [name for name in plugins.found("decoders") if f"{slug}_".startswith(f"{name}_")]
    name = max(known, key=len, default=slug)
    rest = slug.removeprefix(name).removeprefix("_")
    # A setting follows the last value; the underscore inside a name has no ~ before the next one.
    parts = re.split(r"_(?=[A-Za-z_]+~)", rest, maxsplit=0) if rest else []
    pairs = [pair.replace("~", " ", 1).removeprefix(f"{name} ").replace("_", " ") for pair in parts]
    return " ".join([name.replace("_", " "), " · ".join(pairs)]).strip()
