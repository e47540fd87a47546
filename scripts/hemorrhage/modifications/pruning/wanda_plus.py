"""Wanda++ (its regional gradient score): Wanda's score with the gradient of the block's own output beside the norm.

The score is |W|·(‖X‖ + α·G) with G the root mean square over samples of ∂‖f(X)‖/∂W, f the weight's block and α = 100.
No gradient of the whole model is needed. ‖X‖ is that over the tokens of a sample, √L·x with x the root mean square over
tokens, and G grows with √L as well, so that divided by √L the score is |W|·(x + α/√L·G). The gradients are those of the
dense model; the norms are of the inputs that the pruned targets before make. The regional optimisation of the paper, a
short training of each block, is left out: it is no pruning score. It costs about three forward passes beside Wanda's.

Yang et al., Wanda++: Pruning Large Language Models via Regional Gradients, 2025 (arXiv 2503.04992).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from hemorrhage.methods import pruning
from hemorrhage.settings import Axis, between

NEEDS = frozenset({"calibration"})
AXIS = Axis("sparsity", harmless=0, unit="share of weights")
NEUTRAL = {"sparsity": 0}
EXAMPLE = {"sparsity": 0.5}
REPAIRS = ("magnitude", "wanda")

refuse = pruning.refuse


@dataclass(frozen=True)
class Settings(pruning.SequentialSettings):
    """What to prune, on which text inputs and gradients are seen, and how much the gradient counts.

    Attributes:
        scale: α, the factor of the regional gradient; 0 is Wanda.
    """

    scale: float = 100.0

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "scale", between("scale", self.scale, 0, 1e9))


def apply(model, settings: Settings, data) -> dict[str, Any]:
    """Prune every target by |W|·(x + α/√L·G) while the calibration tokens run through the model.

    Raises ValueError if a pattern does not divide a width, or a gradient is not finite.
    """
    from hemorrhage.activations import calibration, regional
    from hemorrhage.methods import allocation, scores

    tokens = data.tokens(settings.calibration)
    cutter = pruning.Cutter(settings, "row", allocation.shares(model, tokens, settings, data.chunk))
    gradients = regional.gradients(model, tokens)
    weight_of_gradient = settings.scale / math.sqrt(tokens.shape[1])
    unseen = 0

    def visit(group) -> None:
        nonlocal unseen
        for target in group.targets:
            unseen += not group.rows
            gradient = gradients.pop(target.name)
            factor = group.square_mean().sqrt() + weight_of_gradient * gradient if group.rows else 1.0
            cutter.cut(target, scores.wanda(target.weight, factor))

    calibration.walk(model, tokens, visit, order=settings.order, chunk=data.chunk, statistics=("square_mean",))
    return {**cutter.achieved(), "targets_without_tokens": unseen, "gradient_weight": weight_of_gradient}
