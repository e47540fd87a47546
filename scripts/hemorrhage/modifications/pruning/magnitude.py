"""Magnitude pruning: the smallest weights of every matrix become zero.

The data-free baseline of unstructured pruning. It costs one partial sort a matrix and no calibration; it is blind to
which inputs are large, and breaks first. Weights are compared within the whole matrix, or within groups of m
neighbours for a pattern n:m. Only OWL's allocation, an option here as in its paper, looks at calibration tokens.

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
class Settings(pruning.CalibratedSettings):
    """What to prune, the whole matrix being the comparison group, and how the sparsity is shared among the blocks.

    Attributes:
        calibration: name of the calibration set on which OWL counts outliers; None without it.
    """

    calibration: str | None = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.allocation == "owl":
            object.__setattr__(self, "calibration", self.calibration or "default")
        elif self.calibration is not None:
            raise ValueError(
                f"calibration: {self.calibration!r} is not read; magnitude looks at inputs only with allocation: owl."
            )


def apply(model, settings: Settings, data) -> dict[str, Any]:
    """Prune every target by |W|. Raises ValueError if a pattern does not divide a width."""
    from hemorrhage.architecture import targets
    from hemorrhage.methods import allocation

    tokens = data.tokens(settings.calibration) if settings.calibration else None
    cutter = pruning.Cutter(settings, "matrix", allocation.shares(model, tokens, settings, data.chunk))
    for target in targets.find(model):
        cutter.cut(target, target.weight.abs())
    return cutter.achieved()
