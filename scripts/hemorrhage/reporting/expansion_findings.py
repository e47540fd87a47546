"""What was found about added depth, as sentences with numbers: lossless growth, damage, attention, places."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from hemorrhage.analysis import correlations, tables
from hemorrhage.analysis.curves import label
from hemorrhage.figures.depth_map import maps
from hemorrhage.figures.disruption import X, Y
from hemorrhage.reporting import wording

FAMILY = "expansion"
ADDED = "blocks added"
LOSSLESS = 1e-6  # nats; float32 in another order of summation stays below it


def sentences(metrics: pd.DataFrame, grid: dict[str, Any]) -> list[str]:
    """Return the findings on expansion, attention and depth; empty for a study without any of them.

    Args:
        metrics: metrics.tsv.
        grid: the study's grid.
    """
    found = []
    for model, group in tables.groups(metrics, "model"):
        name = f"{model}: " if metrics.model.nunique() > 1 else ""
        found += [
            name + text for text in [*_growth(group, grid), *_at_equal_depth(group, grid), *_places(group, str(model))]
        ]
    return [*found, *_disruption(metrics)]


def _growth(metrics: pd.DataFrame, grid: dict[str, Any]) -> list[str]:
    """Which expansions lose nothing, and which lose least and most."""
    rows = metrics[(metrics.family == FAMILY) & (metrics.probe == "fidelity")].drop_duplicates(["variant", "metric"])
    wide = rows.pivot(index="variant", columns="metric", values="value")
    if len(wide) < 2 or not {"kl", "perplexity_ratio"} <= set(wide.columns):
        return []
    kl = wide.kl.sort_values(kind="stable")
    free, lossy = kl[kl < LOSSLESS], kl[kl >= LOSSLESS]
    text = []
    if len(free):
        methods = sorted(rows[rows.variant.isin(free.index)].method.str.replace("_", " ").unique())
        text.append(
            f"Growing the model loses nothing with {' and '.join(methods)} (largest KL "
            f"{'exactly 0' if free.max() == 0 else wording.number(float(free.max()))})"
        )
    if len(lossy):
        first, last = str(lossy.index[0]), str(lossy.index[-1])
        ratio = {str(variant): float(value) for variant, value in wide.perplexity_ratio.items()}
        text.append(
            f"of {len(lossy)} expansions that change the function, {label(first, grid)} does least (KL "
            f"{wording.number(float(lossy.iloc[0]))}, perplexity ×"
            f"{wording.number(ratio[first])}) and {label(last, grid)} most (KL "
            f"{wording.number(float(lossy.iloc[-1]))}, perplexity ×"
            f"{wording.number(ratio[last])})"
        )
    joined = "; ".join(text)
    return [joined[:1].upper() + joined[1:] + "."] if text else []


def _at_equal_depth(metrics: pd.DataFrame, grid: dict[str, Any]) -> list[str]:
    """The sweeps over added blocks side by side, at the number of blocks that most of them have."""
    deeper = {method for method, axis in grid["axes"].items() if axis["unit"] == ADDED}
    rows = metrics[(metrics.family == FAMILY) & (metrics.probe == "fidelity") & (metrics.metric == "kl")]
    rows = rows[rows.method.isin(deeper)].drop_duplicates(["sweep", "level"])
    rows = rows.assign(blocks_added=pd.to_numeric(rows.level, errors="coerce"))
    numbers = rows.blocks_added.value_counts()
    if numbers.empty or numbers.max() < 2:
        return []
    added = float(numbers.index[numbers == numbers.max()].max())
    shown = rows[rows.blocks_added == added].sort_values(["value", "sweep"])
    listed = [f"{label(row.sweep, grid)} {wording.number(row.value)}" for row in tables.rows(shown)]
    return [f"With {added:g} blocks added, the KL is: {', '.join(listed)}."]


def _disruption(metrics: pd.DataFrame) -> list[str]:
    """Whether attention disruption goes with damage."""
    found = []
    for pair in correlations.pairs(metrics, X, Y):
        rank = wording.interval(pair.low, pair.high, 2)
        verdict = "goes with" if pair.low > 0 else "runs against" if pair.high < 0 else "is not shown to go with"
        found.append(
            f"Disruption of attention {verdict} damage over {len(pair.points)} variants of {pair.model}: rank "
            f"correlation with KL {wording.number(pair.rank, 2)} (95 % {rank}), of the logarithms "
            f"{wording.number(pair.linear, 2)}."
        )
    return found


def _places(metrics: pd.DataFrame, model: str) -> list[str]:
    """Where single blocks can be removed or repeated, and where not."""
    found = []
    for kind, frame in maps(metrics).get(model, {}).items():
        if 1 not in frame.index:
            continue
        row = frame.loc[1].dropna()
        verb = "removing" if kind == "removal" else "repeating"
        values = row.to_numpy(dtype=float)
        best, worst = int(np.argmin(values)), int(np.argmax(values))
        ratios = [_ratio(metrics, kind, int(row.index[place])) for place in (best, worst)]
        found.append(
            f"Depth: {verb} one block costs least at block {row.index[best]} (KL "
            f"{wording.number(float(values[best]))}{ratios[0]}) and most at block {row.index[worst]} (KL "
            f"{wording.number(float(values[worst]))}{ratios[1]})."
        )
    return found


def _ratio(metrics: pd.DataFrame, kind: str, block: int) -> str:
    """The perplexity ratio of one removed or repeated block, as the end of a bracket."""
    rows = metrics[(metrics.probe == "depth_map") & (metrics.metric == f"{kind}_delta_nll.{block:02d}.1")]
    if rows.empty or not math.isfinite(float(rows.value.iloc[0])):
        return ""
    change = float(rows.value.iloc[0])
    return f", perplexity ×{wording.number(math.exp(change) if change < 700 else math.inf)}"
