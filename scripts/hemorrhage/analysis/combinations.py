"""Whether damage adds up: two steps together against the sum of each alone, over the same windows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from hemorrhage.analysis import statistics, tables
from hemorrhage.planning import combinations

METRIC = "delta_nll"
COLUMNS = [
    "model",
    "first",
    "second",
    "level_first",
    "level_second",
    "variant",
    "together",
    "sum",
    "difference",
    "difference_low",
    "difference_high",
    "verdict",
    "blocks",
]
NUMBERS = ["level_first", "level_second", "together", "sum", "difference", "difference_low", "difference_high"]
MORE, LESS, SAME, OPEN = "more than the sum", "less than the sum", "the sum", "undecided"
INFINITE = "infinite"
MARGIN = 0.05  # nats: 5 % of perplexity, the smallest loss of it that studies ask a threshold for
SHARE = 0.1  # of the sum: where damage is large 0.05 nat is nothing


def compare(windows_path: str, study: Mapping[str, Any], out: str) -> None:
    """Write combinations.tsv: a row per model and cell of a grid of two steps.

    The difference is ΔNLL of the two steps together less the sum of the ΔNLL of each alone, in nats a token, paired by
    window; above 0 the steps hurt more together. A cell is left out where a step was not measured alone. Verdicts:

    - "the sum": the whole interval of the difference lies within ``margin``, be it beside 0 or not: a difference that
      is known to be so small is none to plan by;
    - "more than the sum", "less than the sum": the interval is on one side of 0, and not all of it within the margin;
    - "undecided": the interval holds 0 and reaches beyond the margin, or there is none;
    - "infinite": of two steps together or one alone a window is not finite, so that there is no difference.

    Args:
        windows_path: windows.parquet.
        study: the grid of the study.
        out: combinations.tsv.
    """
    windows = tables.read_windows(windows_path)
    models = sorted({model for model, _, metric in windows if metric == METRIC})
    rows = [row for grid in combinations.found(study) for model in models for row in _rows(grid, model, windows)]
    tables.write(pd.DataFrame(rows, columns=COLUMNS), out)


def read(path: str) -> pd.DataFrame:
    """Read combinations.tsv with its numbers as numbers."""
    frame = tables.read(path)
    for column in NUMBERS:
        frame[column] = pd.to_numeric(frame[column])
    return frame


def margin(total: float) -> float:
    """Return how far from a sum of damages, in nats, still counts as the sum: ``MARGIN``, or ``SHARE`` of it."""
    return max(MARGIN, SHARE * abs(total))


def _rows(grid: combinations.Combination, model: str, windows: Mapping) -> list[dict[str, Any]]:
    rows = []
    for (first, second), slug in sorted(grid.variants.items()):
        slugs = (slug, grid.singles[0].get(first), grid.singles[1].get(second))
        if not all((model, each, METRIC) in windows for each in slugs):
            continue
        together, one, other = (windows[model, each, METRIC][0] for each in slugs)
        counts = windows[model, slug, METRIC][1]
        index = statistics.index_matrix(model, "evaluation", len(counts))
        found = statistics.paired_difference(together, one + other, counts, index)
        total = float((one + other).sum() / counts.sum())
        rows.append(
            {
                "model": model,
                "first": grid.steps[0],
                "second": grid.steps[1],
                "level_first": first,
                "level_second": second,
                "variant": slug,
                "together": float(together.sum() / counts.sum()),
                "sum": total,
                "difference": found.value,
                "difference_low": found.low,
                "difference_high": found.high,
                "verdict": _verdict(found, total),
                "blocks": found.blocks,
            }
        )
    return rows


def _verdict(found: statistics.Estimate, total: float) -> str:
    if not math.isfinite(found.value):
        return INFINITE
    if -margin(total) <= found.low and found.high <= margin(total):
        return SAME
    return MORE if found.low > 0 else LESS if found.high < 0 else OPEN
