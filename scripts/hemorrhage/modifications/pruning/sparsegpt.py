"""SparseGPT: prune column by column and let the remaining weights of each row make up for it.

The second moments H of the input say what pruning a weight costs after the best update of the others, w²/[H⁻¹]_jj; the
scores are compared within blocks of 128 columns over all rows, as in the reference code. H is damped by a share of its
mean diagonal; where it has no Cholesky factor (fewer tokens than channels), damping grows tenfold until it has, and
the largest one used is recorded. It costs Wanda's forward pass, a Gram matrix for every input, and the solver. An
expert that no calibration token reached has no H: its weights are pruned by |W| and not updated.

Frantar and Alistarh, SparseGPT: Massive Language Models Can Be Accurately Pruned in One-Shot, 2023 (arXiv 2301.00774).
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
    """What to prune, on which text the inputs are seen, and how the solver works.

    Attributes:
        damping: share of the mean diagonal that is added to the second moments.
        block: columns whose scores are compared, and whose updates reach the columns after them together.
    """

    damping: float = 0.01
    block: int = 128

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "damping", between("damping", self.damping, 1e-6, 10))
        object.__setattr__(self, "block", whole("block", self.block, 1))


def apply(model, settings: Settings, data) -> dict[str, Any]:
    """Prune and update every target while the calibration tokens run through the model once.

    Raises ValueError if a pattern does not divide a width, or a weight or an input is not finite.
    """
    from hemorrhage.activations import calibration
    from hemorrhage.methods import allocation, factors, surgeon, tensors

    tokens = data.tokens(settings.calibration)
    cutter = pruning.Cutter(settings, "matrix", allocation.shares(model, tokens, settings, data.chunk))
    dampings = []
    unseen = 0

    def visit(group) -> None:
        nonlocal unseen
        unseen += 0 if group.rows else len(group.targets)
        groups = cutter.groups(group.targets[0])
        weights = [tensors.require_finite(target.weight, target.name) for target in group.targets]
        factor, used = factors.inverse_factor(group.gram(), settings.damping)
        dampings.append(used)
        shares = [cutter.share(target) for target in group.targets]
        for target, (keep, new) in zip(
            group.targets, surgeon.prune(weights, factor, shares, groups, settings.block), strict=True
        ):
            cutter.put(target, keep, new)

    calibration.walk(model, tokens, visit, order=settings.order, chunk=data.chunk, statistics=("gram",))
    return {
        **cutter.achieved(),
        "targets_without_tokens": unseen,
        "largest_damping": max(dampings),
        "inputs_damped_more": sum(used > settings.damping for used in dampings),
    }
