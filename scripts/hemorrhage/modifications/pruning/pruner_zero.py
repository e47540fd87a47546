"""Pruner-Zero: prune by W² times the loss gradient, scaled to 0 … 1 within the matrix.

The score was found by a search over symbolic expressions; it reads no activations, so that beside the gradients,
collected once for a model and calibration set, it costs one partial sort a matrix. Scores are compared within an
output row.

Dong et al., Pruner-Zero: Evolving Symbolic Pruning Metric from Scratch for Large Language Models, 2024
(arXiv 2406.02924).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hemorrhage.methods import pruning
from hemorrhage.settings import Axis, require

NEEDS = frozenset({"calibration", "gradients"})
AXIS = Axis("sparsity", harmless=0, unit="share of weights")
NEUTRAL = {"sparsity": 0}
EXAMPLE = {"sparsity": 0.5}
REPAIRS = ("magnitude", "wanda")

refuse = pruning.refuse


@dataclass(frozen=True)
class Settings(pruning.CalibratedSettings):
    """What to prune, and on which text the gradients are collected.

    Attributes:
        norm: how gradients are summed over samples: "l2" (root mean square) or "l1" (mean absolute value).
    """

    norm: str = "l2"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.norm, ("l1", "l2"), "norm")


def apply(model, settings: Settings, data) -> dict[str, Any]:
    """Prune every target by W² · mms(G).

    Raises ValueError if a pattern does not divide a width, or the gradients are of another model.
    """
    from hemorrhage.architecture import targets
    from hemorrhage.methods import allocation, scores

    gradients = data.gradients(settings.calibration, settings.norm)
    shares = allocation.shares(model, data.tokens(settings.calibration), settings, data.chunk)
    cutter = pruning.Cutter(settings, "row", shares)
    for target in targets.find(model):
        cutter.cut(target, scores.pruner_zero(target.weight, pruning.gradient_of(gradients, target)))
    return cutter.achieved()
