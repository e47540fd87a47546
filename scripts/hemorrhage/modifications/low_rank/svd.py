"""Truncated SVD: keep the largest singular values of every matrix.

The weight is replaced by its best approximation of rank r in the plain sense, W ≈ U·Σ·Vᵀ, and measured as the dense
matrix that the two factors make; what they would hold is recorded. It needs no data.

Eckart and Young, The Approximation of One Matrix by Another of Lower Rank, 1936.
"""

from __future__ import annotations

from typing import Any

from hemorrhage.methods import low_rank
from hemorrhage.settings import Axis

NEEDS: frozenset[str] = frozenset()
AXIS = Axis("ratio", harmless=0, unit="share of parameters")
NEUTRAL = {"ratio": 0}
EXAMPLE = {"ratio": 0.5}
REPAIRS: tuple[str, ...] = ()

Settings = low_rank.Settings


def apply(model, settings: Settings, data) -> dict[str, Any]:
    """Truncate every target; returns ranks, parameters as factors and the relative error.

    Raises ValueError if a weight is not finite.
    """
    from hemorrhage.architecture import targets

    if not settings.ratio:
        return {"ratio": 0.0}
    cutter = low_rank.Truncater(settings.ratio)
    for target in targets.find(model):
        cutter.cut(target)
    return cutter.achieved()
