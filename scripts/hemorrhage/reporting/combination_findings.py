"""What the combinations of two steps say, in sentences with numbers."""

from __future__ import annotations

from typing import Any

import pandas as pd

from hemorrhage.analysis import combinations, tables
from hemorrhage.analysis.curves import label
from hemorrhage.reporting import wording


def sentences(table: pd.DataFrame, grid: dict[str, Any]) -> list[str]:
    """Return one sentence per model and pair of steps.

    Args:
        table: combinations.tsv.
        grid: the study's grid.
    """
    several = table.model.nunique() > 1
    return [
        _sentence(key, rows, grid, several)
        for key, rows in tables.groups(table, ["model", "first", "second"], sort=True)
    ]


def counted(rows: pd.DataFrame) -> str:
    """Return how often the damage of two steps is more than, less than and just the sum of that of each alone."""
    known = [
        (combinations.MORE, "more than the sum"),
        (combinations.LESS, "less than the sum"),
        (combinations.SAME, f"within {combinations.MARGIN:g} nat or {100 * combinations.SHARE:g} % of the sum"),
        (combinations.OPEN, "undecided"),
        (combinations.INFINITE, "infinite"),
    ]
    counts = [(int((rows.verdict == verdict).sum()), words) for verdict, words in known]
    return ", ".join(f"{words} in {number}" for number, words in counts if number)


def _sentence(key: Any, rows: pd.DataFrame, grid: dict[str, Any], several: bool) -> str:
    model, first, second = key
    text = f"{label(first, grid)} with {label(second, grid)}{f' on {model}' if several else ''}: of {len(rows)} cells, "
    text += f"against the sum of each alone, the damage together is {counted(rows)}"
    finite = rows[rows.difference.abs() < float("inf")]
    if finite.empty:
        return text + "."
    worst = tables.rows(finite.iloc[[int(finite.difference.abs().to_numpy().argmax())]])[0]
    return (
        f"{text}; the largest difference is {wording.signed(worst.difference, 3)} nat "
        f"{wording.interval(worst.difference_low, worst.difference_high)} ({label(worst.variant, grid)})."
    )
