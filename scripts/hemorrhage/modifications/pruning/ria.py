"""RIA: prune by the relative importance of a weight among its row and its column, times a root of the input norm.

The score is (|W| / Σ of its column + |W| / Σ of its row) · ‖X‖^a with a = ½: a channel is not lost as a whole because
all its weights are small. Scores are compared over the whole matrix, as the published command does; ``compare: row``
compares within an output, as Wanda. It costs Wanda's forward pass. An expert that no calibration token reached has no
norm: its relative importance alone decides.

Zhang et al., Plug-and-Play: An Efficient Post-training Pruning Method for Large Language Models, ICLR 2024.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hemorrhage.methods import pruning
from hemorrhage.settings import Axis, between, require

NEEDS = frozenset({"calibration"})
AXIS = Axis("sparsity", harmless=0, unit="share of weights")
NEUTRAL = {"sparsity": 0}
EXAMPLE = {"sparsity": 0.5}
REPAIRS: tuple[str, ...] = ()

refuse = pruning.refuse


@dataclass(frozen=True)
class Settings(pruning.SequentialSettings):
    """What to prune, on which text the inputs are seen, and how much they count.

    Attributes:
        exponent: a of ‖X‖^a; 0 leaves relative importance alone.
        compare: "matrix" or "row", the comparison group of plain sparsity.
    """

    exponent: float = 0.5
    compare: str = "matrix"

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "exponent", between("exponent", self.exponent, 0, 4))
        require(self.compare, ("matrix", "row"), "compare")


def apply(model, settings: Settings, data) -> dict[str, Any]:
    """Prune every target by relative importance and activations in one pass of the calibration tokens.

    Raises ValueError if a pattern does not divide a width.
    """
    from hemorrhage.activations import calibration
    from hemorrhage.methods import allocation, scores

    tokens = data.tokens(settings.calibration)
    cutter = pruning.Cutter(settings, settings.compare, allocation.shares(model, tokens, settings, data.chunk))
    unseen = 0

    def visit(group) -> None:
        nonlocal unseen
        norm = group.square_mean().sqrt() if group.rows else 1.0
        for target in group.targets:
            unseen += not group.rows
            cutter.cut(target, scores.ria(target.weight, norm, settings.exponent))

    calibration.walk(model, tokens, visit, order=settings.order, chunk=data.chunk, statistics=("square_mean",))
    return {**cutter.achieved(), "targets_without_tokens": unseen}
