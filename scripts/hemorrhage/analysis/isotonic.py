"""Non-decreasing curves: weighted pool-adjacent-violators, and where such a curve first exceeds a tolerance.

Positions run from the harmless end outwards. Infinite damage is allowed; what lies beyond it is infinite too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Crossing:
    """Where a curve first exceeds a tolerance.

    Attributes:
        position: the crossing; nan if the curve stays below or starts above.
        inside: index of the last point within the tolerance, -1 if none is.
        outside: index of the first point beyond it, the number of points if none is.
    """

    position: float
    inside: int
    outside: int


def fit(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the weighted least-squares non-decreasing fit [L] to ``values`` [L]; nan counts as infinite damage."""
    means: list[float] = []
    masses: list[float] = []
    sizes: list[int] = []
    for value, weight in zip(values, weights, strict=True):
        means.append(math.inf if math.isnan(value) else float(value))
        masses.append(float(weight))
        sizes.append(1)
        while len(means) > 1 and means[-2] > means[-1]:
            mean, mass, size = means.pop(), masses.pop(), sizes.pop()
            total = masses[-1] + mass
            means[-1] = (means[-1] * masses[-1] + mean * mass) / total
            masses[-1] = total
            sizes[-1] += size
    return np.repeat(np.array(means), sizes)


def crossing(positions: np.ndarray, curve: np.ndarray, at: float, step: bool = False) -> Crossing:
    """Return where the non-decreasing ``curve`` [L] over rising ``positions`` [L] first exceeds ``at``.

    Between two points the curve is linear; towards an infinite point nothing is known, so the last finite one holds.
    With ``step`` (values between two levels mean nothing) the last position inside is the crossing.
    """
    beyond = np.flatnonzero(curve > at)
    outside = int(beyond[0]) if len(beyond) else len(curve)
    inside = outside - 1
    if inside < 0 or outside == len(curve):
        return Crossing(math.nan, inside, outside)
    near, far = float(curve[inside]), float(curve[outside])
    if step or math.isinf(far):
        return Crossing(float(positions[inside]), inside, outside)
    share = (at - near) / (far - near)
    return Crossing(float(positions[inside] + share * (positions[outside] - positions[inside])), inside, outside)
