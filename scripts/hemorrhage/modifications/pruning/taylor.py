"""Taylor pruning: prune the weights whose removal changes the loss least, to first order, |W · ∂L/∂W|.

The size of the gradient is averaged over samples (l1: the mean of |w·g|; l2: the root of w² times the diagonal of the
empirical Fisher matrix), so that samples of opposite sign do not cancel as in SNIP. Beside the gradients, collected
once for a model and calibration set, it costs one partial sort a matrix. Scores are compared within the whole matrix,
or within an output row with ``compare: row``.

Molchanov et al., Importance Estimation for Neural Network Pruning, 2019 (arXiv 1906.10771); Lee et al., SNIP, 2019
(arXiv 1810.02340).
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
        norm: how gradients are summed over samples: "l1" (mean absolute value) or "l2" (root mean square).
        compare: "matrix" or "row", the comparison group of plain sparsity.
    """

    norm: str = "l1"
    compare: str = "matrix"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.norm, ("l1", "l2"), "norm")
        require(self.compare, ("matrix", "row"), "compare")


def apply(model, settings: Settings, data) -> dict[str, Any]:
    """Prune every target by |W · G|.

    Raises ValueError if a pattern does not divide a width, or the gradients are of another model.
    """
    from hemorrhage.architecture import targets
    from hemorrhage.methods import allocation, scores

    gradients = data.gradients(settings.calibration, settings.norm)
    shares = allocation.shares(model, data.tokens(settings.calibration), settings, data.chunk)
    cutter = pruning.Cutter(settings, settings.compare, shares)
    for target in targets.find(model):
        cutter.cut(target, scores.taylor(target.weight, pruning.gradient_of(gradients, target)))
    return cutter.achieved()
