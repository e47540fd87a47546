"""The worth of a mitigation: how far it moves the threshold, and what it changes at equal level.

Both are paired: the same windows, the same resampling. The shift of a threshold has a delete-one-window jackknife
interval (t with B-1 degrees of freedom); it counts in the direction of damage, so a positive shift means that the
model can be modified further. On integer axes the shift is in levels between the last ones tested inside. Its interval
joins the two thresholds' intervals, which hold the untested whole levels up to the first one outside: sweeps with
other levels, or with gaps, show no shift that they did not measure. A difference at equal level counts in the metric's
own unit; negative is less damage.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from hemorrhage.analysis import isotonic, statistics, tables, thresholds
from hemorrhage.analysis.curves import REFERENCE, Curve, curves, probe_of, rises
from hemorrhage.analysis.pairing import Pair, pairs

COLUMNS = [
    "model",
    "mitigation",
    "baseline",
    "kind",
    "sweep",
    "sweep_baseline",
    "axis",
    "criterion",
    "level",
    "threshold_baseline",
    "threshold_mitigated",
    "shift",
    "shift_low",
    "shift_high",
    "shift_state",
    "value_baseline",
    "value_mitigated",
    "difference",
    "difference_low",
    "difference_high",
    "verdict",
    "blocks",
    "protocol",
]
HELPS, HURTS, SAME, OPEN = "helps", "hurts", "no difference", "undecided"
PAIRED, BRACKETS, AT_LEAST, AT_MOST = "paired", "levels", "at least", "at most"
NO_INTERVAL = "no interval"
Windows = Mapping[tuple[str, str, str], tuple[np.ndarray, np.ndarray]]


def compare(
    metrics_path: str,
    windows_path: str,
    study: dict[str, Any],
    criteria: Mapping[str, dict[str, Any]],
    floors_path: str | None,
    out: str,
) -> None:
    """Write mitigations.tsv: rows of kind "threshold" (per criterion) and of kind "level" (per metric and level).

    Args:
        metrics_path: metrics.tsv.
        windows_path: windows.parquet.
        study: the grid: variants, axes, repairs, recipes.
        criteria: name -> {"metric", "at"}, as for ``thresholds.find``.
        floors_path: floors.tsv, or None; a tolerance below ten times a floor is judged by neither table.
        out: mitigations.tsv.
    """
    metrics, windows = tables.read(metrics_path), tables.read_windows(windows_path)
    floors = tables.read(floors_path) if floors_path else None
    fidelity = metrics[metrics.probe == "fidelity"]
    known = {key: set(group.variant) for key, group in tables.groups(fidelity, ["model", "protocol"])}
    rows: list[dict[str, Any]] = []
    for pair in pairs(curves(metrics, study, fewest=1), study, known):
        shared = {
            "model": pair.curve.model,
            "mitigation": pair.mitigation,
            "baseline": pair.baseline,
            "sweep": pair.curve.sweep,
            "sweep_baseline": pair.against.sweep if pair.against else "",
            "axis": pair.curve.axis["setting"],
            "protocol": pair.curve.protocol,
        }
        against = pair.against
        if against is not None and min(_measured(pair.curve), _measured(against)) > 1:
            for name, criterion in criteria.items():
                ours, theirs = (_side(side, metrics, criterion) for side in (pair.curve, against))
                if min(_measured(ours), _measured(theirs)) > 1:
                    floor = thresholds.floor_of(floors, pair.curve.model, criterion["metric"])
                    rows.append(
                        {
                            **shared,
                            "kind": "threshold",
                            "criterion": name,
                            **_shift(ours, theirs, metrics, windows, criterion, floor),
                        }
                    )
        for metric, good in {each["metric"]: -1.0 if rises(each) else 1.0 for each in criteria.values()}.items():
            rows.extend(
                {**shared, "kind": "level", "criterion": metric, **row} for row in _levels(pair, windows, metric, good)
            )
    order = ["model", "mitigation", "baseline", "sweep", "sweep_baseline", "kind", "criterion", "level"]
    frame = pd.DataFrame(rows, columns=COLUMNS).sort_values(order, kind="stable")
    tables.write(frame, out)


def verdict(low: float, high: float, good: float) -> str:
    """Return the word for an interval of a difference; ``good`` is the sign that means less damage."""
    if math.isnan(low) or math.isnan(high):
        return OPEN
    if low <= 0 <= high:
        return SAME
    return HELPS if (low > 0) == (good > 0) else HURTS


def _side(curve: Curve, metrics: pd.DataFrame, criterion: Mapping[str, Any]) -> Curve:
    """A curve at the levels that the criterion's probe measured."""
    return curve.measured(metrics, criterion["metric"], probe_of(criterion, metrics))


def _levels(pair: Pair, windows: Windows, metric: str, good: float) -> list[dict[str, Any]]:
    """The paired difference of a metric at every level that both sides have; ``good`` is the sign of less damage."""
    rows = []
    for level, mitigated, baseline in pair.matches:
        sides = [windows.get((pair.curve.model, slug, metric)) for slug in (mitigated, baseline)]
        if any(side is None for side in sides):
            continue
        (ours, counts), (theirs, _) = (side for side in sides if side is not None)
        index = statistics.index_matrix(pair.curve.model, "evaluation", len(counts))
        found = statistics.paired_difference(ours, theirs, counts, index)
        ends = (found.value, found.value) if math.isinf(found.value) else (found.low, found.high)
        rows.append(
            {
                "level": level,
                "value_baseline": theirs.sum() / counts.sum(),
                "value_mitigated": ours.sum() / counts.sum(),
                "difference": found.value,
                "difference_low": found.low,
                "difference_high": found.high,
                "verdict": verdict(*ends, good=good),
                "blocks": found.blocks,
            }
        )
    return rows


def _shift(
    curve: Curve,
    against: Curve,
    metrics: pd.DataFrame,
    windows: Windows,
    criterion: Mapping[str, Any],
    floor: float = 0.0,
) -> dict[str, Any]:
    """The shift of one threshold from ``against`` to ``curve``, with its interval and state."""
    baseline, mitigated = (_threshold(side, metrics, criterion, floor) for side in (against, curve))
    row = {
        "threshold_baseline": baseline.threshold,
        "threshold_mitigated": mitigated.threshold,
        "verdict": OPEN,
        "blocks": metrics[metrics.probe == probe_of(criterion, metrics)].blocks.max(),
    }
    sign = 1.0 if curve.axis["rises"] else -1.0
    states = (baseline.state, mitigated.state)
    if states != (thresholds.INSIDE, thresholds.INSIDE):
        return {**row, **_censored(baseline, mitigated, sign, step=thresholds.STEP if curve.axis["integer"] else 0.0)}
    shift = sign * (mitigated.threshold - baseline.threshold)
    if math.isnan(baseline.low) or math.isnan(mitigated.low):
        low, high, state = math.nan, math.nan, NO_INTERVAL
    elif curve.axis["integer"]:
        near, far = (sorted(_ends(side, sign)) for side in (mitigated, baseline))
        low, high, state = near[0] - far[1], near[1] - far[0], BRACKETS
    else:
        deleted = [
            _deleted(side, windows, criterion, thresholds.tolerated(side, metrics, criterion))
            for side in (curve, against)
        ]
        _, low, high = statistics.jackknife_interval(shift, deleted[0] - deleted[1])
        state = PAIRED if not math.isnan(low) else "one window decides"
    return {
        **row,
        "shift": shift,
        "shift_low": low,
        "shift_high": high,
        "shift_state": state,
        "verdict": verdict(low, high, good=1.0),
    }


def _threshold(curve: Curve, metrics: pd.DataFrame, criterion: Mapping[str, Any], floor: float) -> thresholds.Threshold:
    return thresholds.tolerance(
        curve.levels,
        **thresholds.damage_of(curve, metrics, criterion),
        rises=curve.axis["rises"],
        integer=curve.axis["integer"],
        floor=floor,
    )


def _censored(
    baseline: thresholds.Threshold, mitigated: thresholds.Threshold, sign: float, step: float
) -> dict[str, Any]:
    """What is known of a shift when a threshold lies outside the tested levels: a careful bound, or only the states.

    The bound runs between the ends of the two sides that face each other, so it holds with their uncertainty.
    """
    inside, beyond, before = thresholds.INSIDE, thresholds.NOT_REACHED, thresholds.EXCEEDED
    states = (baseline.state, mitigated.state)
    low, high, state = -math.inf, math.inf, ""
    if states in ((inside, beyond), (before, inside), (before, beyond)):
        low, high, state = _near(mitigated, sign) - _far(baseline, sign, step), math.inf, AT_LEAST
    elif states in ((beyond, inside), (inside, before), (beyond, before)):
        low, high, state = -math.inf, _far(mitigated, sign, step) - _near(baseline, sign), AT_MOST
    if math.isnan(low) or math.isnan(high):
        return {"shift_state": NO_INTERVAL}
    if math.isinf(low) and math.isinf(high):
        return {"shift_state": f"{baseline.state} / {mitigated.state}"}
    word = verdict(low, high, good=1.0) if low > 0 or high < 0 else OPEN
    return {"shift_low": low, "shift_high": high, "shift_state": state, "verdict": word}


def _near(side: thresholds.Threshold, sign: float) -> float:
    """The position that a threshold lies at or beyond; a curve that stays inside may cross by its upper band.

    nan without an interval; so is ``_far``.
    """
    last = [sign * side.inside] if side.state == thresholds.NOT_REACHED else []
    return float(np.min([*last, *_ends(side, sign)]))


def _far(side: thresholds.Threshold, sign: float, step: float) -> float:
    """The position that a threshold lies at or before; a curve that starts outside may cross by its lower band.

    On integer axes (``step`` 1, else 0) it lies at least a step before a first level that is outside already.
    """
    first = [sign * side.outside - step] if side.state == thresholds.EXCEEDED else []
    return float(np.max([*first, *_ends(side, sign)]))


def _ends(side: thresholds.Threshold, sign: float) -> tuple[float, float]:
    return sign * side.low, sign * side.high


def _deleted(curve: Curve, windows: Windows, criterion: Mapping[str, Any], tolerated: float) -> np.ndarray:
    """The positions [B] of the threshold with each window left out; nan where it leaves the tested levels."""
    found = [windows.get((curve.model, slug, criterion["metric"])) for slug in curve.variants]
    if any(side is None for side in found):
        return np.full(2, math.nan)
    sums, counts = (np.stack([side[part] for side in found]) for part in (0, 1))  # type: ignore[index]
    sign = 1.0 if rises(criterion) else -1.0
    left_sums, left_counts = sums.sum(1, keepdims=True) - sums, counts.sum(1, keepdims=True) - counts
    damage = sign * np.where(np.isfinite(sums.sum(1, keepdims=True)), left_sums / left_counts, math.inf)
    errors = np.array([statistics.mean_interval(*side).se for side in found])  # type: ignore[misc]
    weights = thresholds.weights_of(errors)
    at = np.full(damage.shape[1], sign * tolerated)
    own = windows.get((curve.model, REFERENCE, criterion["metric"]))
    if "relative" in criterion and own is not None:
        at = sign * float(criterion["relative"]) * (own[0].sum() - own[0]) / (own[1].sum() - own[1])
    return np.array(
        [
            isotonic.crossing(curve.positions, isotonic.fit(damage[:, window], weights), at[window]).position
            for window in range(damage.shape[1])
        ]
    )


def _measured(curve: Curve) -> int:
    return len(curve.levels) - int(curve.anchored)
