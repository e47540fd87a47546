"""Wanda: prune the weights with the smallest |W|·‖X‖ of every output row.

The norm of each input channel comes from calibration tokens in one forward pass; q, k and v share one norm. Targets
see the inputs that the pruned ones before them make. An expert that no calibration token reached has no norm: its
weights are compared by |W| alone, and the number of such experts is recorded.

Sun et al., A Simple and Effective Pruning Approach for Large Language Models, 2023 (arXiv 2306.11695).
"""

from __future__ import annotations

from typing import Any

from hemorrhage.methods import pruning
from hemorrhage.settings import Axis

NEEDS = frozenset({"calibration"})
AXIS = Axis("sparsity", harmless=0, unit="share of weights")
NEUTRAL = {"sparsity": 0}
EXAMPLE = {"sparsity": 0.5}
REPAIRS: tuple[str, ...] = ()

refuse = pruning.refuse
Settings = pruning.SequentialSettings


def apply(model, settings: Settings, data) -> dict[str, Any]:
    """Prune every target by |W|·‖X‖ while the calibration tokens run through the model once.

    Raises ValueError if a pattern does not divide a width.
    """
    from hemorrhage.activations import calibration
    from hemorrhage.methods import allocation

    tokens = data.tokens(settings.calibration)
    cutter = pruning.Cutter(settings, "row", allocation.shares(model, tokens, settings, data.chunk))
    unseen = 0

    def visit(group) -> None:
        nonlocal unseen
        norm = group.square_mean().sqrt() if group.rows else 1.0
        for target in group.targets:
            unseen += not group.rows
            cutter.cut(target, target.weight.abs().float() * norm)

    calibration.walk(model, tokens, visit, order=settings.order, chunk=data.chunk, statistics=("square_mean",))
    return {**cutter.achieved(), "targets_without_tokens": unseen}
