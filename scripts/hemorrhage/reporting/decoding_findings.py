"""What generated text and decoded tasks say, in sentences with numbers."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pandas as pd

from hemorrhage.analysis import tables
from hemorrhage.analysis.curves import REFERENCE, label
from hemorrhage.decoding import task_scores
from hemorrhage.figures.decoding import GREEDY, decoder_label, text_rows
from hemorrhage.reporting import wording

KEPT, AGREEMENT = "weight_effect.first_divergence", "weight_effect.token_agreement"
AMPLIFICATION = "amplification_common"


def sentences(metrics: pd.DataFrame, grid: dict[str, Any]) -> list[str]:
    """Return the sentences on texts, their amplification and tasks, model by model.

    Args:
        metrics: metrics.tsv.
        grid: the study's grid.
    """
    text = text_rows(metrics)
    changed = text[text.variant != REFERENCE]
    result = []
    for model, rows in tables.groups(changed, "model", sort=True):
        name = f" on {model}" if metrics.model.nunique() > 1 else ""
        result += [*_kept(rows, grid, name), *_by_decoder(rows, name), *_amplified(rows, name)]
        result += _alike(text[text.model == model], name)
    return result + _task_scores(metrics, grid)


def _kept(rows: pd.DataFrame, grid: dict[str, Any], name: str) -> list[str]:
    """The variants whose text stays the reference's for longest and for shortest, over all decoders."""
    rows = rows[rows.metric == KEPT]
    if rows.empty:
        return []
    means = rows.groupby("variant").value.mean().sort_index().sort_values(kind="stable")
    decoders = rows.decoder.nunique()
    over = f"the mean of {decoders} decoders" if decoders > 1 else decoder_label(rows.decoder.iloc[0])
    kept = f"Text{name}, by {over}: the weights of {label(means.index[-1], grid)} keep the reference's words for "
    kept += f"{wording.number(means.iloc[-1])} tokens"
    if len(means) > 1:
        kept += f", those of {label(means.index[0], grid)} for {wording.number(means.iloc[0])}"
    return [kept + "."]


def _by_decoder(rows: pd.DataFrame, name: str) -> list[str]:
    """The decoders by which modified weights change least and most of the text."""
    means = rows[rows.metric == AGREEMENT].groupby("decoder").value.mean().sort_index().sort_values(kind="stable")
    if len(means) < 2:
        return []
    most, least = (f"{decoder_label(means.index[i])} ({100 * means.iloc[i]:.1f} % of the tokens stay)" for i in (0, -1))
    return [f"Of {len(means)} decoders{name}, modified weights change least of the text by {least}, most by {most}."]


def _amplified(rows: pd.DataFrame, name: str) -> list[str]:
    """How many tokens differ in free running for a differing choice along a given text, and how sure that is."""
    rows = rows[(rows.metric == AMPLIFICATION) & rows.value.map(math.isfinite)]
    if rows.empty:
        return []
    above, below = int((rows.low > 1).sum()), int((rows.high < 1).sum())
    pairs = f"{len(rows)} pairs of variant and decoder"
    return [
        f"Amplification{name}: of a variant's text {wording.number(rows.value.median())} times as many tokens differ "
        f"as of its choices along the reference's (median of {pairs}); the interval lies above 1 in {above} of them, "
        f"below 1 in {below}."
    ]


def _alike(text: pd.DataFrame, name: str) -> list[str]:
    """Decoders whose text cannot be told apart by any measure of any variant."""
    rows = text[(text.decoder != GREEDY) & text.effect.isin(["weight_effect", "decoder_effect"])]
    rows = rows[~rows.measure.str.startswith("forced.")]  # distributions can differ where the texts do not
    wide = rows.pivot_table(index="decoder", columns=["variant", "metric"], values="value")
    pairs = [
        f"{decoder_label(one)} and {decoder_label(other)}"
        for one, other in itertools.combinations(wide.index, 2)
        if wide.loc[one].equals(wide.loc[other])
    ]
    return [
        f"Every measure of text{name} is the same by {pair}: on these texts they are one decoder." for pair in pairs
    ]


def _task_scores(metrics: pd.DataFrame, grid: dict[str, Any]) -> list[str]:
    """Per model and task, the best and the worst decoder on the reference, and the best and worst variant by greedy."""
    scores = task_scores.rows(metrics)
    unchanged = scores[scores.variant == REFERENCE]
    spread, result = task_scores.ranges(scores), []
    for (model, task), group in tables.groups(unchanged, ["model", "dataset"]):
        group = group.sort_values(["value", "decoder"])
        worst, best = group.iloc[0], group.iloc[-1]
        items = f"{int(best.blocks)} items, intervals in the figure"
        if len(group) == 1:
            told = f"{decoder_label(best.decoder)} scores {_percent(best.value)} ({items})"
        elif best.value == worst.value:
            told = f"all {len(group)} decoders score {_percent(best.value)} ({items})"
        else:
            share = float(spread[task][(model, REFERENCE)])
            told = f"best {decoder_label(best.decoder)} with {_percent(best.value)}, worst "
            told += f"{decoder_label(worst.decoder)} with {_percent(worst.value)}"
            told += f", a range of {_percent(share)} of the worst" if math.isfinite(share) else ""
            told += f" ({items})"
        told += _weights(scores[(scores.model == model) & (scores.dataset == task)], grid)
        told += _widest(spread[task] if task in spread else pd.Series(dtype=float), model, grid)
        result.append(f"Task {task} on {model}, unmodified: {told}.")
    return result


def _weights(scores: pd.DataFrame, grid: dict[str, Any]) -> str:
    """What the weights do to a task, by greedy search, as the end of a sentence."""
    rows = scores[(scores.variant != REFERENCE) & (scores.decoder == GREEDY)].sort_values(["value", "variant"])
    if rows.empty:
        return ""
    ends = [f"{label(row.variant, grid)} {_percent(row.value)}" for row in (rows.iloc[-1], rows.iloc[0])]
    return "; of the variants by greedy, " + " to ".join(ends[: min(2, len(rows))])


def _widest(spread: pd.Series, model: str, grid: dict[str, Any]) -> str:
    """On which variant the decoders differ most, as the end of a sentence."""
    shares = spread.dropna()
    known = {key[1]: share for key, share in zip(shares.index.tolist(), shares, strict=True) if key[0] == model}
    if len(known) < 2:
        return ""
    widest = min(known, key=lambda variant: (-known[variant], variant))
    return f"; the range over decoders is widest on {label(widest, grid)}, {_percent(known[widest])} of the worst"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
