"""Structured pruning by Taylor importance: remove the channels and heads whose loss is least felt by the loss.

A unit is worth the sum of |w·∂L/∂w| over all weights that go with it, in the matrices that make it and in the one that
reads it, LLM-Pruner's first-order element-wise importance. LLM-Pruner takes the gradient of one batch, in which samples
of opposite sign cancel; here |∂L/∂w| is the mean over samples (norm "l1"; "l2" for the root mean square), which is what
is collected once for all gradient methods. Every block loses the same number, since a config has one width for all, so
LLM-Pruner's spared first and last blocks are not spared. It costs one backward pass a sample, shared with the others.

Ma et al., LLM-Pruner: On the Structural Pruning of Large Language Models, 2023 (arXiv 2305.11627).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hemorrhage.methods import structured
from hemorrhage.settings import Axis, require

NEEDS = frozenset({"calibration", "gradients"})
AXIS = Axis("ratio", harmless=0, unit="share of block weights")
NEUTRAL = {"ratio": 0}
EXAMPLE = {"ratio": 0.3, "structures": "channels"}
REPAIRS: tuple[str, ...] = ()
CHANGES = "widths"
NORMS = ("l1", "l2")

unsuited = structured.unsuited


@dataclass(frozen=True)
class Settings(structured.Settings):
    """How much of every block goes, and on which text gradients are seen.

    Attributes:
        norm: "l1" (mean of |g| over samples) or "l2" (root mean square).
    """

    norm: str = "l1"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.norm, NORMS, "norm")


def apply(model, settings: Settings, data) -> dict[str, Any]:
    """Cut the units of least importance; returns which, and the weights before and after.

    Raises ValueError if the architecture has no such units, its config cannot say the new widths, or the gradients are
    of another model.
    """
    from hemorrhage.architecture import coupling, widths
    from hemorrhage.methods import importance

    if (reason := unsuited(model)) is not None:
        raise ValueError(reason)
    if not settings.ratio:
        return structured.nothing()
    kinds = structured.STRUCTURES[settings.structures]
    structures = coupling.find(model, kinds)
    numbers = coupling.plan(model, settings.ratio, kinds, settings.multiple)
    widths.require_possible(model, structures, numbers)
    before = widths.counts(model)
    gradients = data.gradients(settings.calibration, settings.norm)
    removed = [
        structured.lowest(importance.of(structure, gradients), numbers[structure.kind]) for structure in structures
    ]
    widths.cut(model, structures, removed)
    return structured.achieved(structures, removed, before, widths.counts(model))
