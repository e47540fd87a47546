"""Generated text: what modified weights change in it, beside what the decoder changes on its own."""

from __future__ import annotations

import dataclasses
import re
import textwrap
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from hemorrhage import plugins
from hemorrhage.analysis import tables
from hemorrhage.analysis.curves import REFERENCE, label
from hemorrhage.reporting import plotting

PREFIX = "text."
GREEDY = "greedy"
TICK_WIDTH = 28  # characters beside an axis before a line is broken
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
    """Write token agreement and first divergence: decoders as rows, variants as colours. Arguments: see the package."""
    text = text_rows(tables.read(paths["metrics"]))
    if text.empty:
        plotting.message(svg, png, "No text was generated in this study.")
        return
    models = sorted(text.model.unique())
    variants = ranking(text)
    tall = (0.15 * len(variants) + 0.2) * text.decoder.nunique() * len(models) + 1.7
    with plotting.figure(len(models), 2, (10.5, tall), sharey="row") as (drawn, axes):
        for row, model in zip(axes, models, strict=True):
            shown = text[text.model == model]
            decoders = by_agreement(shown)
            for axis, (measure, caption) in zip(row, PANELS.items(), strict=True):
                _panel(axis, shown[shown.measure == measure], decoders, variants)
                axis.set_xlabel(caption)
                axis.set_yticks(range(len(decoders)), [tick_label(decoder) for decoder in decoders])
                axis.set_ylim(len(decoders) - 0.4, -0.6)
            row[0].set_title(model)
        handles, names = _legend([label(variant, grid) for variant in variants])
        drawn.legend(handles, names, loc="outside lower center", ncols=min(4, len(handles)), fontsize=8)
        plotting.save(drawn, svg, png)


def text_rows(metrics: pd.DataFrame) -> pd.DataFrame:
    """Return the text metrics, each variant once, with columns decoder, effect and measure."""
    rows = metrics[metrics.probe.str.startswith(PREFIX)].drop_duplicates(["model", "variant", "probe", "metric"]).copy()
    rows["decoder"] = rows.probe.str.removeprefix(PREFIX)
    parts = rows.metric.str.partition(".")
    rows["effect"], rows["measure"] = (parts[0], parts[2]) if len(rows) else ("", "")
    return rows


def ranking(text: pd.DataFrame) -> list[str]:
    """Return the variants from the most to the least faithful text, the reference first."""
    weight = text[(text.effect == "weight_effect") & (text.measure == "token_agreement")]
    means = weight.groupby("variant").value.mean()
    rest = sorted(
        (slug for slug in text.variant.unique() if slug != REFERENCE), key=lambda slug: (-means.get(slug, -1.0), slug)
    )
    return [slug for slug in [REFERENCE] if (text.variant == slug).any()] + rest


def by_agreement(text: pd.DataFrame) -> list[str]:
    """Return the decoders of one model, those first by which modified weights change least of the text."""
    weight = text[(text.effect == "weight_effect") & (text.measure == "token_agreement") & (text.variant != REFERENCE)]
    means = weight.groupby("decoder").value.mean()
    return sorted(text.decoder.unique(), key=lambda slug: (-means.get(slug, -1.0), slug))


def _panel(axes: Axes, text: pd.DataFrame, decoders: list[str], variants: list[str]) -> None:
    for place, variant in enumerate(variants):
        colour, marker = _style(place)
        shift = 0.84 * ((place + 0.5) / len(variants) - 0.5)
        rows = text[text.variant == variant]
        for effect, filled in (("weight_effect", True), ("decoder_effect", False)):
            points = rows[rows.effect == effect]
            if filled and variant == REFERENCE:
                continue  # the control: all of its text is the reference's, which the tables show
            if not filled:
                points = points[points.decoder != GREEDY]  # what the other decoders are compared with
            heights = [decoders.index(decoder) + shift for decoder in points.decoder]
            if filled:
                axes.hlines(heights, points.low, points.high, color=colour, linewidth=1.1, zorder=2)
            axes.plot(
                points.value,
                heights,
                linestyle="none",
                marker=marker,
                markersize=4.5,
                color=colour,
                markerfacecolor=colour if filled else plotting.PAPER,
                zorder=3,
            )
    floor = text[(text.effect == "seed_floor") & (text.variant == REFERENCE) & (text.decoder != GREEDY)]
    places = np.array([decoders.index(decoder) for decoder in floor.decoder], dtype=float)
    axes.vlines(floor.value, places - 0.45, places + 0.45, color=plotting.MUTED, linestyle=":", linewidth=1.3, zorder=1)
    axes.hlines(np.arange(len(decoders) - 1) + 0.5, 0, 1, transform=axes.get_yaxis_transform(), color=plotting.GRID)
    axes.set_xlim(left=0)
    axes.grid(axis="y", visible=False)


def _style(place: int) -> tuple[str, str]:
    """The reference is black; variants have a colour and a marker each."""
    if place == 0:
        return plotting.INK, "o"
    return plotting.PALETTE[(place - 1) % len(plotting.PALETTE)], plotting.MARKERS[place % len(plotting.MARKERS)]


def _legend(names: list[str]) -> tuple[list[Line2D], list[str]]:
    handles = []
    for place in range(len(names)):
        colour, marker = _style(place)
        handles.append(Line2D([], [], color=colour, marker=marker, markersize=4.5, linewidth=1.1))
    hollow: dict[str, Any] = {"marker": "o", "linestyle": "none", "markerfacecolor": plotting.PAPER}
    handles.append(Line2D([], [], color=plotting.MUTED, marker="o", linewidth=1.1))
    handles.append(Line2D([], [], color=plotting.MUTED, **hollow))
    handles.append(Line2D([], [], color=plotting.MUTED, linestyle=":", linewidth=1.3))
    return handles, [*names, "filled: effect of the weights", "open: effect of the decoder", "another seed"]


def tick_label(slug: str) -> str:
    """Return a decoder's label in lines that fit beside an axis."""
    return textwrap.fill(decoder_label(slug), TICK_WIDTH)


def decoder_label(slug: str) -> str:
    """Return a decoder's slug for people: ``temperature_temperature~0.7`` becomes ``temperature 0.7``."""
    known = [plugin for plugin in plugins.found("decoders").values() if f"{slug}_".startswith(f"{plugin.name}_")]
    if not known:
        return slug.replace("_", " ")
    plugin = max(known, key=lambda one: len(one.name))
    settings = "|".join(field.name for field in dataclasses.fields(plugin.module.Settings))
    pairs = re.split(rf"_(?=(?:{settings})~)", slug.removeprefix(plugin.name)) if settings else []
    words = [re.sub("[_~]", " ", pair).removeprefix(f"{plugin.name} ") for pair in pairs if pair]
    return f"{plugin.name.replace('_', ' ')} {', '.join(words)}".strip()
