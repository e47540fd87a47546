"""ASVD: truncated SVD of the weights scaled by the size of their input channels.

With S = diag((mean|x|)^α), W·S is truncated and S undone, so that channels with large inputs are kept better. Measured
as the dense matrix that the two factors make. It costs one forward pass over the calibration tokens. The published
search for a rank by layer is left out: every matrix loses the same share.

Yuan et al., ASVD: Activation-aware Singular Value Decomposition for Compressing Large Language Models, 2023
(arXiv 2312.05821).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hemorrhage.methods import low_rank
from hemorrhage.settings import Axis, between

NEEDS = frozenset({"calibration"})
AXIS = Axis("ratio", harmless=0, unit="share of parameters")
NEUTRAL = {"ratio": 0}
EXAMPLE = {"ratio": 0.5}
REPAIRS: tuple[str, ...] = ()
SMALLEST = 1e-6  # added to every scale, as in the authors' code: a channel that is always 0 must not divide by 0


@dataclass(frozen=True)
class Settings(low_rank.CalibratedSettings):
    """How much of every matrix goes, and how inputs count.

    Attributes:
        alpha: power of the mean |x| of a channel, 0 (plain SVD) to 1.
    """

    alpha: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "alpha", between("alpha", self.alpha, 0, 1))


def apply(model, settings: Settings, data) -> dict[str, Any]:
    """Truncate every target under the scale of its input; returns ranks, parameters as factors and the relative error.

    Raises ValueError if a weight is not finite.
    """
    if not settings.ratio:
        return {"ratio": 0.0}
    cutter = low_rank.Truncater(settings.ratio)
    unseen = low_rank.walk(
        model,
        settings,
        data,
        ("absolute_mean",),
        lambda group: group.absolute_mean() ** settings.alpha + SMALLEST,
        cutter,
    )
    return {**cutter.achieved(), "targets_without_tokens": unseen}
