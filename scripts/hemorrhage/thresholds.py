"""Thresholds: how far a model can be modified before the damage first exceeds a stated tolerance.

The estimator ``tolerance`` fits a non-decreasing curve through the levels and takes its first exceedance. Continuous
axes are interpolated linearly in nats (that is log-linear in perplexity); on integer axes the last level inside is
the threshold and the first level outside stands beside it. The interval comes from the curves through the ends of the
levels' intervals: where the upper one crosses to where the lower one does.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from hemorrhage import isotonic, tables
from hemorrhage.curves import Curve, curves

FEWEST_LEVELS = 4
FLOOR_MULTIPLE = 10
INSIDE, NOT_REACHED, EXCEEDED = "inside", "not reached", "already exceeded"
TOO_FEW, BELOW_FLOOR = "too few levels", "below floor"
COLUMNS = ["model", "sweep", "arm", "family", "method", "axis", "criterion", "tolerance", "threshold", "low", "high",
           "inside", "outside", "state", "estimator", "levels", "blocks", "monotone", "protocol"]


@dataclass(frozen=True)
class Threshold:
    """The farthest point from the harmless end before the first exceedance of a tolerance.

    Attributes:
        threshold: the point on the axis; nan unless the state is ``inside``.
        low: numerically lower end of its interval; infinite where the interval leaves the tested levels.
        high: numerically upper end.
        inside: last level within the tolerance; nan if none is.
        outside: first level beyond it; nan if none is.
        state: ``inside`` (the tested levels bracket it), ``not reached``, ``already exceeded``, ``too few levels``
            or ``below floor`` (the tolerance is within ten times what the instrument shows without a modification).
        levels: number of levels, the harmless end included.
        monotone: False if the raw damage falls by more than its interval explains.
    """

    threshold: float
    low: float
    high: float
    inside: float
    outside: float
    state: str
    levels: int
    monotone: bool


def tolerance(
    levels: np.ndarray,
    damage: np.ndarray,
    at: float,
    low: np.ndarray | None = None,
    high: np.ndarray | None = None,
    weights: np.ndarray | None = None,
    rises: bool = True,
    integer: bool = False,
    floor: float = 0.0,
) -> Threshold:
    """Return where the damage along an axis first exceeds ``at``.

    Args:
        levels: [L] places on the axis in any order, the harmless end included if its damage is known.
        damage: [L] in the unit of ``at``, larger is worse; for perplexity take its logarithm. nan counts as infinite.
        at: the tolerance.
        low: [L] lower ends of the damages' intervals; without them the threshold has no interval.
        high: [L] upper ends.
        weights: [L] for the isotonic fit; equal if None.
        rises: True if larger levels do more damage.
        integer: True if values between two levels have no meaning.
        floor: damage that the instrument shows without a modification.
    """
    levels, damage = np.asarray(levels, dtype=float), _infinite(damage)
    order = np.argsort(levels if rises else -levels, kind="stable")
    positions = (levels if rises else -levels)[order]
    values = damage[order]
    masses = np.ones(len(levels)) if weights is None else np.asarray(weights, dtype=float)[order]
    curve = isotonic.fit(values, masses)
    lower, upper = (values if end is None else _infinite(end)[order] for end in (low, high))
    banded = low is not None and high is not None
    found = isotonic.crossing(positions, curve, at, integer)
    state = _state(found, len(levels), at, floor)
    ends = (math.nan, math.nan)
    if banded and state in (INSIDE, NOT_REACHED, EXCEEDED):
        near, far = (_end(positions, isotonic.fit(band, masses), at, integer) for band in (upper, lower))
        ends = (near, far)
    sign = 1.0 if rises else -1.0
    level_at = [sign * float(positions[i]) if 0 <= i < len(levels) else math.nan for i in (found.inside, found.outside)]
    monotone = not bool(((curve < lower - 1e-12) | (curve > upper + 1e-12)).any())
    threshold = sign * found.position if state == INSIDE else math.nan
    first, last = sorted(sign * end for end in ends) if not math.isnan(ends[0]) else ends
    return Threshold(threshold, first, last, level_at[0], level_at[1], state, len(levels), monotone)


def find(
    metrics_path: str, study: dict[str, Any], criteria: Mapping[str, dict[str, Any]], floors_path: str | None, out: str
) -> None:
    """Write thresholds.tsv: one row per sweep and criterion.

    Args:
        metrics_path: metrics.tsv.
        study: the grid: variants, axes, repairs, recipes.
        criteria: name -> {"metric", "at"}, and "higher_is_better" for a metric that falls with damage.
        floors_path: floors.tsv, or None.
        out: thresholds.tsv.
    """
    metrics = tables.read(metrics_path)
    floors = tables.read(floors_path) if floors_path else None
    rows = []
    for curve in curves(metrics, study):
        for name, criterion in criteria.items():
            if (metrics.metric == criterion["metric"]).any():
                rows.append(_row(curve, metrics, name, criterion, floor_of(floors, curve.model, criterion["metric"])))
    tables.write(pd.DataFrame(rows, columns=COLUMNS), out)


def damage_of(curve: Curve, metrics: pd.DataFrame, criterion: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of ``tolerance`` for a curve and a criterion: damage, interval, weights, tolerance."""
    values = curve.values(metrics, criterion["metric"])
    sign = -1.0 if criterion.get("higher_is_better") else 1.0
    ends = [sign * values[end].to_numpy(dtype=float) for end in ("low", "high")]
    low, high = ends if sign > 0 else ends[::-1]
    return {"damage": sign * values.value.to_numpy(dtype=float), "low": low, "high": high,
            "weights": weights_of(values.se.to_numpy(dtype=float)), "at": sign * float(criterion["at"])}


def weights_of(se: np.ndarray) -> np.ndarray:
    """Return inverse variances [L], bounded to a ratio of 10⁴ so that an exact point does not swallow the others."""
    known = se[np.isfinite(se) & (se > 0)]
    largest = float(known.max()) if len(known) else 1.0
    return 1.0 / np.clip(np.nan_to_num(se, nan=largest, posinf=largest), largest / 100, largest) ** 2


def floor_of(floors: pd.DataFrame | None, model: str, metric: str) -> float:
    """Return the largest floor of a metric; 0 if none was measured."""
    if floors is None:
        return 0.0
    rows = floors[(floors.model == model) & (floors.metric == metric)]
    return float(rows.value.max()) if len(rows) else 0.0


def _row(curve: Curve, metrics: pd.DataFrame, name: str, criterion: Mapping[str, Any], floor: float) -> dict[str, Any]:
    found = tolerance(curve.levels, **damage_of(curve, metrics, criterion), rises=curve.axis["rises"],
                      integer=curve.axis["integer"], floor=floor)
    blocks = curve.values(metrics, criterion["metric"]).blocks.min()
    return {"model": curve.model, "sweep": curve.sweep, "arm": curve.arm, "family": curve.family,
            "method": curve.method, "axis": curve.axis["setting"], "criterion": name, "tolerance": criterion["at"],
            **vars(found), "estimator": "tolerance", "blocks": blocks, "protocol": curve.protocol}


def _state(found: isotonic.Crossing, levels: int, at: float, floor: float) -> str:
    if floor > 0 and abs(at) < FLOOR_MULTIPLE * floor:
        return BELOW_FLOOR
    if levels < FEWEST_LEVELS:
        return TOO_FEW
    if found.inside < 0:
        return EXCEEDED
    return NOT_REACHED if found.outside == levels else INSIDE


def _end(positions: np.ndarray, band: np.ndarray, at: float, integer: bool) -> float:
    """One end of the interval as a position; infinite where the band never or always exceeds the tolerance."""
    found = isotonic.crossing(positions, band, at, integer)
    if found.inside < 0:
        return -math.inf
    return math.inf if found.outside == len(positions) else found.position


def _infinite(values: np.ndarray) -> np.ndarray:
    """A nan means that the model produced no number: infinite damage."""
    values = np.array(values, dtype=float)
    values[np.isnan(values)] = math.inf
    return values
