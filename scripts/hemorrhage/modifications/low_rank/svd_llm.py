"""SVD-LLM: truncated SVD of the weights after whitening of their input, which makes the output error least.

With S·Sᵀ the Gram matrix of the inputs (Cholesky), ‖(W − Ŵ)·S‖ is the error of the outputs, and the truncated W·S has
the smallest of all matrices of its rank. Damping is added to the diagonal until there is a factor, and the largest one
used is recorded. Measured as the dense matrix that the two factors make. It costs one forward pass over the calibration
tokens and a Cholesky factor of every input. The published update of the weights by fine-tuning is left to `finetune`.

Wang et al., SVD-LLM: Truncation-aware Singular Value Decomposition for Large Language Model Compression, 2024
(arXiv 2403.07378).
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


@dataclass(frozen=True)
class Settings(low_rank.CalibratedSettings):
    """How much of every matrix goes, and how safe the factor is.

    Attributes:
        damping: share of the mean diagonal that is added to the Gram matrix at first, 0 to 1.
    """

    damping: float = 1e-6

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "damping", between("damping", self.damping, 0, 1))


def apply(model, settings: Settings, data) -> dict[str, Any]:
    """Truncate every whitened target; returns ranks, parameters as factors, the relative errors and the damping used.

    Raises ValueError if a weight or an input is not finite.
    """
    if not settings.ratio:
        return {"ratio": 0.0}
    used = settings.damping

    def scale(group):
        nonlocal used
        factor, damping = low_rank.whitening(group.gram(), settings.damping)
        used = max(used, damping)
        return factor

    cutter = low_rank.Truncater(settings.ratio)
    unseen = low_rank.walk(model, settings, data, ("gram",), scale, cutter)
    return {**cutter.achieved(), "damping": used, "targets_without_tokens": unseen}
