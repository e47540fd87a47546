"""ADMM pruning: alternate between the mask and the least-squares weights for it.

Inputs are scaled to norm 1, so that the first mask is Wanda's over the whole matrix; over 15 steps the share that is
pruned grows on a cubic schedule while the weights follow, and 5 more updates settle them. It costs a Gram matrix for
every input and about 40 products of the weight with it: several times SparseGPT.

Two things differ from the published code: a pattern n:m is honoured for every n and m (the code prunes 2 of 4 whatever
m says, so that its 4:8 results are 2:4 results), and plain sparsity follows the schedule (the code asks for all of it
from the first step). An expert that no calibration token reached is pruned by |W| and not updated.

Boža, Fast and Optimal Weight Update for Pruned Large Language Models, 2024 (arXiv 2401.02938).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hemorrhage.methods import pruning
from hemorrhage.settings import Axis, between, whole

NEEDS = frozenset({"calibration"})
AXIS = Axis("sparsity", harmless=0, unit="share of weights")
NEUTRAL = {"sparsity": 0}
EXAMPLE = {"sparsity": 0.5}
REPAIRS: tuple[str, ...] = ()

refuse = pruning.refuse


@dataclass(frozen=True)
class Settings(pruning.SequentialSettings):
    """What to prune, on which text the inputs are seen, and how long to alternate.

    Attributes:
        damping: share of the mean diagonal that is added to the scaled second moments.
        mask_steps: iterations in which the mask is chosen again.
        iterations: updates of the weights, at least ``mask_steps``.
    """

    damping: float = 0.1
    mask_steps: int = 15
    iterations: int = 20

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "damping", between("damping", self.damping, 0, 10))
        object.__setattr__(self, "mask_steps", whole("mask_steps", self.mask_steps, 1))
        object.__setattr__(self, "iterations", whole("iterations", self.iterations, 1))
        if self.iterations < self.mask_steps:
            raise ValueError(
                f"iterations: {self.iterations} is less than mask_steps ({self.mask_steps}); the mask "
                "would not reach its sparsity."
            )


def apply(model, settings: Settings, data) -> dict[str, Any]:
    """Prune and update every target while the calibration tokens run through the model once.

    Raises ValueError if a pattern does not divide a width, or a weight or an input is not finite.
    """
    from hemorrhage.activations import calibration
    from hemorrhage.methods import allocation, alternating, tensors

    tokens = data.tokens(settings.calibration)
    cutter = pruning.Cutter(settings, "matrix", allocation.shares(model, tokens, settings, data.chunk))
    unseen = 0

    def visit(group) -> None:
        nonlocal unseen
        unseen += 0 if group.rows else len(group.targets)
        weights = [tensors.require_finite(target.weight, target.name) for target in group.targets]
        gram = tensors.require_finite(group.gram(), f"the inputs of {group.targets[0].name}")
        found = alternating.prune(
            weights,
            gram,
            [cutter.share(target) for target in group.targets],
            cutter.groups(group.targets[0]),
            settings.damping,
            settings.mask_steps,
            settings.iterations,
        )
        for target, (keep, new) in zip(group.targets, found, strict=True):
            cutter.put(target, keep, new)

    calibration.walk(model, tokens, visit, order=settings.order, chunk=data.chunk, statistics=("gram",))
    return {**cutter.achieved(), "targets_without_tokens": unseen}
