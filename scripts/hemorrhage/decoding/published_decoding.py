"""The published comparison of twelve decoders (9 models, 3 tasks; Fig. 10 of Model Hemorrhage) and its arithmetic."""

from __future__ import annotations

import os

import numpy as np
import pandas as pd

from hemorrhage.analysis import tables

ITEMS = {"gsm8k": 1319, "mbpp": 500}  # a score is a percentage of so many items
ROUNDING, CUT = 0.0051, 1e-6  # percent; scores are printed with two decimals
GREEDY = "greedy"


def read(path: str | os.PathLike) -> pd.DataFrame:
    """Return the table: model, dataset, decoder, score."""
    table = tables.read(path)
    return table.assign(score=table.score.astype(float))


def relative_range(table: pd.DataFrame) -> pd.DataFrame:
    """Return (best − worst) / worst over the decoders, models as rows and datasets as columns; nan if worst is 0."""
    scores = table.groupby(["model", "dataset"]).score
    worst = scores.min()
    return ((scores.max() - worst) / worst.where(worst > 0)).unstack("dataset")


def greedy_is_lowest(table: pd.DataFrame, dataset: str) -> int:
    """Return for how many models no decoder scores below greedy search."""
    wide = table[table.dataset == dataset].pivot(index="model", columns="decoder", values="score")
    return int((wide[GREEDY] <= wide.min(axis=1)).sum())


def impossible(table: pd.DataFrame, dataset: str) -> pd.DataFrame:
    """Return the cells that are no share of the task's items, neither rounded nor cut to two decimals.

    They are averages of several runs, or slips.
    """
    rows, items = table[table.dataset == dataset], ITEMS[dataset]
    solved = (rows.score / 100 * items).round()
    rounded = (solved * 100 / items - rows.score).abs() < ROUNDING
    for more in (0, 1):
        rounded |= (np.floor((solved + more) * 1e4 / items) / 100 - rows.score).abs() < CUT
    return rows[~rounded]
