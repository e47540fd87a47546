"""Thresholds: how far a model can be modified before the damage first exceeds a stated tolerance.

The estimator ``tolerance`` fits a non-decreasing curve through the levels and takes its first exceedance. Continuous
axes are interpolated linearly in nats (that is log-linear in perplexity); on integer axes the last level inside is
the threshold and the first level outside stands beside it. The interval comes from the curves through the ends of the
levels' intervals: where the upper one crosses to where the lower one does. On integer axes it runs from the last level
inside by the upper one to one step before the first level outside by the lower one: whole levels between two tested
ones may lie inside as well.

Beside it every sweep with a harmless end gets the ``phase-transition`` estimator, on perplexity and with at least 8
levels, in both forms of ``phase_transition.py``: its low and high are the range over fits that leave one level out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from hemorrhage.analysis import isotonic, phase_transition, tables
from hemorrhage.analysis.curves import Curve, curves, probe_of, rises

FEWEST_LEVELS = 4
FLOOR_MULTIPLE = 10
STEP = 1.0  # between two levels of an integer axis
INSIDE, NOT_REACHED, EXCEEDED = "inside", "not reached", "already exceeded"
TOO_FEW, BELOW_FLOOR = "too few levels", "below floor"
FITTED, SMOOTH = "leave-one-level-out range", "no transition"
PERPLEXITY, TRANSITION = "perplexity", "phase_transition"
COLUMNS = [
    "model",
    "sweep",
    "arm",
    "family",
    "method",
    "axis",
    "criterion",
    "tolerance",
    "threshold",
    "low",
    "high",
    "inside",
    "outside",
    "state",
    "estimator",
    "levels",
    "blocks",
    "monotone",
    "protocol",
]


@dataclass(frozen=True)
class Threshold:
    """The farthest point from the harmless end before the first exceedance of a tolerance.

    Attributes:
        threshold: the point on the axis; nan unless the state is ``inside``.
        low: numerically lower end of its interval; infinite where the interval leaves the tested levels, nan where
            there is none because a finite damage has none. On integer axes both ends are whole levels, tested or not.
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
        low: [L] lower ends of the damages' intervals; where one of a finite damage is missing (None, or nan) the
            threshold has no interval. An infinite damage needs none.
        high: [L] upper ends.
        weights: [L] for the isotonic fit; equal if None.
        rises: True if larger levels do more damage.
        integer: True if values between two levels have no meaning.
        floor: damage that the instrument shows without a modification.
    """
    levels, damage = np.asarray(levels, dtype=float), _infinite(damage)
    bands = _bands(damage, low, high)
    order = np.argsort(levels if rises else -levels, kind="stable")
    positions = (levels if rises else -levels)[order]
    values = damage[order]
    masses = np.ones(len(levels)) if weights is None else np.asarray(weights, dtype=float)[order]
    curve = isotonic.fit(values, masses)
    lower, upper = (values, values) if bands is None else (end[order] for end in bands)
    found = isotonic.crossing(positions, curve, at, integer)
    state = _state(found, len(levels), at, floor)
    ends = (math.nan, math.nan)
    if bands is not None and state in (INSIDE, NOT_REACHED, EXCEEDED):
        ends = (
            _near_end(positions, isotonic.fit(upper, masses), at, integer),
            _far_end(positions, isotonic.fit(lower, masses), at, integer),
        )
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
        criteria: name -> {"metric", "at"} or {"metric", "relative"}, a factor on the reference's value; and
            "higher_is_better" for a metric that falls with damage, "probe" for one that is not of ``fidelity``.
        floors_path: floors.tsv, or None.
        out: thresholds.tsv.
    """
    metrics = tables.read(metrics_path)
    floors = tables.read(floors_path) if floors_path else None
    rows = []
    for curve in curves(metrics, study):
        for name, criterion in criteria.items():
            measured = curve.measured(metrics, criterion["metric"], probe_of(criterion, metrics))
            if len(measured.levels) - measured.anchored > 1:
                floor = floor_of(floors, curve.model, criterion["metric"])
                rows.append(_row(measured, metrics, name, criterion, floor))
        if curve.axis["harmless"] is not None and len(curve.measured(metrics, PERPLEXITY).levels) > 1:
            rows.extend(_transitions(curve.measured(metrics, PERPLEXITY), metrics))
    tables.write(pd.DataFrame(rows, columns=COLUMNS), out)


def damage_of(curve: Curve, metrics: pd.DataFrame, criterion: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of ``tolerance`` for a curve and a criterion: damage, interval, weights, tolerance."""
    values = curve.values(metrics, criterion["metric"], probe_of(criterion, metrics))
    sign = 1.0 if rises(criterion) else -1.0
    ends = [sign * values[end].to_numpy(dtype=float) for end in ("low", "high")]
    low, high = ends if sign > 0 else ends[::-1]
    return {
        "damage": sign * values.value.to_numpy(dtype=float),
        "low": low,
        "high": high,
        "weights": weights_of(values.se.to_numpy(dtype=float)),
        "at": sign * tolerated(curve, metrics, criterion),
    }


def tolerated(curve: Curve, metrics: pd.DataFrame, criterion: Mapping[str, Any]) -> float:
    """Return the value that must not be passed, in the metric's unit; nan without the reference it is relative to."""
    if "relative" not in criterion:
        return float(criterion["at"])
    reference = curve.reference(metrics, criterion["metric"], probe_of(criterion, metrics))
    return float(criterion["relative"]) * reference


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
    found = tolerance(
        curve.levels,
        **damage_of(curve, metrics, criterion),
        rises=curve.axis["rises"],
        integer=curve.axis["integer"],
        floor=floor,
    )
    blocks = curve.values(metrics, criterion["metric"], probe_of(criterion, metrics)).blocks.min()
    return {
        **_facts(curve),
        "criterion": name,
        "tolerance": tolerated(curve, metrics, criterion),
        **vars(found),
        "estimator": "tolerance",
        "blocks": blocks,
    }


def _facts(curve: Curve) -> dict[str, Any]:
    return {
        "model": curve.model,
        "sweep": curve.sweep,
        "arm": curve.arm,
        "family": curve.family,
        "method": curve.method,
        "axis": curve.axis["setting"],
        "protocol": curve.protocol,
    }


def _transitions(curve: Curve, metrics: pd.DataFrame) -> list[dict[str, Any]]:
    """The phase-transition rows of a sweep: the published form, and the one from the reference if that is there."""
    values = curve.values(metrics, PERPLEXITY)
    perplexity = values.value.to_numpy(dtype=float)
    distance = np.abs(curve.levels - float(curve.axis["harmless"]))
    end = perplexity[distance == 0]
    used = (distance > 0) & np.isfinite(perplexity)
    forms = {phase_transition.POWER: None, **({phase_transition.DENSE: float(end[0])} if len(end) else {})}
    return [
        {
            **_facts(curve),
            "criterion": TRANSITION,
            "tolerance": math.nan,
            "blocks": values.blocks.min(),
            **vars(_transition(curve, distance[used], perplexity[used], dense)),
            "estimator": f"phase-transition, {form} form",
        }
        for form, dense in forms.items()
    ]


def _transition(curve: Curve, distance: np.ndarray, perplexity: np.ndarray, dense: float | None) -> Threshold:
    """One fit as a threshold; its low and high are a leave-one-level-out range."""
    levels = len(distance)
    if levels < phase_transition.FEWEST_LEVELS:
        return Threshold(math.nan, math.nan, math.nan, math.nan, math.nan, TOO_FEW, levels, True)
    found = phase_transition.fit(distance, perplexity, dense)
    sign = 1.0 if curve.axis["rises"] else -1.0
    place, near, far = (float(curve.axis["harmless"]) + sign * at for at in (found.s0, found.low, found.high))
    order = np.sort(distance)
    inside, outside = order[order <= found.s0].max(), order[order > found.s0].min()
    near_level, far_level = (float(curve.axis["harmless"]) + sign * float(at) for at in (inside, outside))
    threshold = near_level if curve.axis["integer"] else place
    monotone = bool((np.diff(perplexity[np.argsort(distance)]) >= 0).all())
    if not found.supported:
        return Threshold(math.nan, math.nan, math.nan, near_level, far_level, SMOOTH, levels, monotone)
    return Threshold(threshold, min(near, far), max(near, far), near_level, far_level, FITTED, levels, monotone)


def _state(found: isotonic.Crossing, levels: int, at: float, floor: float) -> str:
    if floor > 0 and abs(at) < FLOOR_MULTIPLE * floor:
        return BELOW_FLOOR
    if levels < FEWEST_LEVELS:
        return TOO_FEW
    if found.inside < 0:
        return EXCEEDED
    return NOT_REACHED if found.outside == levels else INSIDE


def _near_end(positions: np.ndarray, band: np.ndarray, at: float, integer: bool) -> float:
    """Where a band crosses, as a position; infinite where it never or always exceeds the tolerance."""
    found = isotonic.crossing(positions, band, at, integer)
    if found.inside < 0:
        return -math.inf
    return math.inf if found.outside == len(positions) else found.position


def _far_end(positions: np.ndarray, band: np.ndarray, at: float, integer: bool) -> float:
    """The same, but on integer axes the last whole level before the first one that was found to be outside."""
    found = isotonic.crossing(positions, band, at, integer)
    if integer and found.outside < len(positions):
        return float(positions[found.outside]) - STEP
    return _near_end(positions, band, at, integer)


def _bands(damage: np.ndarray, low: np.ndarray | None, high: np.ndarray | None) -> tuple[np.ndarray, np.ndarray] | None:
    """The ends [L] of the damages' intervals, infinite where the damage is; None if a finite damage has no interval.

    A single window has none, nor has a largest value: calling such ends infinite would give an interval where nothing
    is known.
    """
    if low is None or high is None:
        return None
    ends = np.array([low, high], dtype=float)
    ends = np.where(np.isnan(ends) & np.isinf(damage), damage, ends)
    return None if np.isnan(ends).any() else (ends[0], ends[1])


def _infinite(values: np.ndarray) -> np.ndarray:
    """A nan means that the model produced no number: infinite damage."""
    values = np.array(values, dtype=float)
    values[np.isnan(values)] = math.inf
    return values
