"""NF4: every weight goes to the nearest of 16 values that are quantiles of a normal distribution.

One scale for every block of weights, of the flattened matrix, as in bitsandbytes, whose CPU and GPU code gives the same
weights; its second quantisation, of the scales, is left out. It costs one pass over the weights. Scales count 32 bits.

Dettmers et al., QLoRA: Efficient Finetuning of Quantized LLMs, 2023 (arXiv 2305.14314).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hemorrhage.methods import quantization
from hemorrhage.settings import Axis, whole

NEEDS: frozenset[str] = frozenset()
AXIS = Axis("group", harmless=None, integer=True, unit="weights per scale")
NEUTRAL = None
EXAMPLE = {"group": 64}
REPAIRS: tuple[str, ...] = ()


@dataclass(frozen=True)
class Settings:
    """The blocks.

    Attributes:
        group: weights that share a scale, 2 or more.
    """

    group: int = 64

    def __post_init__(self) -> None:
        object.__setattr__(self, "group", whole("group", self.group, 2))


def apply(model, settings: Settings, data) -> dict[str, Any]:
    """Quantise every target. Raises ValueError if a weight is not finite."""
    from hemorrhage.methods import grids

    size = quantization.TABLE_BITS + quantization.TABLE_SCALE_BITS / settings.group
    return quantization.round_all(
        model, lambda weight: grids.round_to_table(weight, grids.NF4, settings.group), lambda target: size
    )
