"""Wanda: prune the weights with the smallest |W|·‖X‖ of every output row.

The norm of each input channel comes from calibration tokens in one forward pass; q, k and v share one norm. Targets
see the inputs that the pruned ones before them make. An expert that no calibration token reached has no norm: its
weights are compared by |W| alone, and the number of such experts is recorded.

Sun et al., A Simple and Effective Pruning Approach for Large Language Models, 2023 (arXiv 2306.11695).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hemorrhage import pruning
from hemorrhage.settings import Axis, require

NEEDS = frozenset({"calibration"})
AXIS = Axis("sparsity", harmless=0, unit="share of weights")
NEUTRAL = {"sparsity": 0}
EXAMPLE = {"sparsity": 0.5}
REPAIRS: tuple[str, ...] = ()
ORDERS = ("linear", "block")


@dataclass(frozen=True)
class Settings:
    """What to prune, and on which text the inputs are seen.

    Attributes:
        sparsity: share of weights that become zero in every output row, 0 to 1; a pattern implies it.
        pattern: ``n:m`` keeps n of every m neighbours in a row, such as "2:4"; None compares whole rows.
        calibration: name of the calibration set.
        order: "linear" (each target sees all pruned ones before it) or "block" (targets of one block see the dense
            block, as in the reference code).
    """

    sparsity: float | None = None
    pattern: str | None = None
    calibration: str = "default"
    order: str = "linear"

    def __post_init__(self) -> None:
        object.__setattr__(self, "sparsity", pruning.validated(self.sparsity, self.pattern))
        require(self.order, ORDERS, "order")


def refuse(settings: Settings, facts: dict[str, int]) -> None:
    """Raise ValueError if the pattern does not divide a width, by what a config.json tells."""
    if "hidden_size" in facts:
        pruning.refuse_width(settings.pattern, "hidden_size", facts["hidden_size"])


def apply(model, settings: Settings, data) -> dict[str, Any]:
    """Prune every target by |W|·‖X‖ while the calibration tokens run through the model once.

    Raises ValueError if a pattern does not divide a width.
    """
    from hemorrhage import calibration

    cutter = pruning.Cutter(settings, "row")
    unseen = 0

    def visit(group) -> None:
        nonlocal unseen
        norm = group.square_mean().sqrt() if group.rows else 1.0
        for target in group.targets:
            unseen += not group.rows
            cutter.cut(target, target.weight.abs().float() * norm)

    calibration.walk(model, data.tokens(settings.calibration), visit, order=settings.order, chunk=data.chunk,
                     statistics=("square_mean",))
    return {**cutter.achieved(), "targets_without_tokens": unseen}
