"""Whether two metrics of the same variants rise together: rank correlation, with an interval over variants."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from hemorrhage.analysis import tables
from hemorrhage.analysis.curves import REFERENCE
from hemorrhage.analysis.statistics import jackknife_interval

FEWEST = 4  # variants


@dataclass(frozen=True)
class Correlation:
    """How two metrics go together over variants.

    Attributes:
        model: name of the model.
        rank: Spearman's rank correlation.
        low: lower end of its 95 % interval, from leaving out one variant at a time.
        high: upper end.
        linear: Pearson's correlation of the logarithms.
        points: a row per variant: variant, family, method, sweep, x, y.
    """

    model: str
    rank: float
    low: float
    high: float
    linear: float
    points: pd.DataFrame


def pairs(metrics: pd.DataFrame, x: tuple[str, str], y: tuple[str, str]) -> list[Correlation]:
    """Return for every model how metric ``x`` and metric ``y``, each (probe, metric), go together over its variants.

    The reference is left out, and what is 0, lossless or not finite on either side; of models with fewer than 4
    variants nothing is said.
    """
    result = []
    for model, group in tables.groups(metrics[metrics.variant != REFERENCE], "model"):
        both = (
            _values(group, *x)
            .join(_values(group, *y)["value"].rename("y"), how="inner")
            .rename(columns={"value": "x"})
            .reset_index()
        )
        both = both[np.isfinite(both.x) & np.isfinite(both.y) & (both.x > 0) & (both.y > 0)]
        if len(both) < FEWEST:
            continue
        left, right = both.x.to_numpy(dtype=float), both.y.to_numpy(dtype=float)
        rank = spearman(left, right)
        deleted = np.array([spearman(np.delete(left, i), np.delete(right, i)) for i in range(len(left))])
        _, low, high = jackknife_interval(rank, deleted)
        result.append(
            Correlation(model, rank, max(low, -1.0), min(high, 1.0), _pearson(np.log(left), np.log(right)), both)
        )
    return result


def spearman(x: np.ndarray, y: np.ndarray) -> float:
    """Return the rank correlation of two arrays; equal values share their mean rank."""
    return _pearson(pd.Series(x).rank().to_numpy(dtype=float), pd.Series(y).rank().to_numpy(dtype=float))


def _values(group: pd.DataFrame, probe: str, metric: str) -> pd.DataFrame:
    rows = group[(group.probe == probe) & (group.metric == metric)].drop_duplicates("variant")
    return rows.set_index("variant")[["family", "method", "sweep", "value"]]


def _pearson(x: np.ndarray, y: np.ndarray) -> float:
    if len(x) < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return math.nan
    return round(float(np.corrcoef(x, y)[0, 1]), 12)  # its last digits are rounding, and 1 must be 1
