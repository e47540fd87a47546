"""Magnitude pruning: the smallest weights of every matrix become zero.

The data-free baseline of unstructured pruning. It costs one partial sort a matrix and no calibration; it is blind to
which inputs are large, and breaks first. Weights are compared within the whole matrix, or within groups of m
neighbours for a pattern n:m.

Han et al., Learning both Weights and Connections for Efficient Neural Networks, 2015 (arXiv 1506.02626).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hemorrhage.methods import pruning
from hemorrhage.settings import Axis

NEEDS: frozenset[str] = frozenset()
AXIS = Axis("sparsity", harmless=0, unit="share of weights")
NEUTRAL = {"sparsity": 0}
EXAMPLE = {"sparsity": 0.5}
REPAIRS: tuple[str, ...] = ()

refuse = pruning.refuse


@dataclass(frozen=True)
class Settings:
    """What to prune.

    Attributes:
        sparsity: share of weights that become zero in every matrix, 0 to 1; a pattern implies it.
        pattern: ``n:m`` keeps n of every m neighbours in a row, such as "2:4"; None compares the whole matrix.
    """

    sparsity: float | None = None
    pattern: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "sparsity", pruning.validated(self.sparsity, self.pattern))


def apply(model, settings: Settings, data) -> dict[str, Any]:
    """Prune every target by |W|. Raises ValueError if a pattern does not divide a width."""
    from hemorrhage.architecture import targets

    cutter = pruning.Cutter(settings, "matrix")
    for target in targets.find(model):
        cutter.cut(target, target.weight.abs())
    return cutter.achieved()
