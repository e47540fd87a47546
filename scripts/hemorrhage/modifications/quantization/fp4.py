"""FP4: every weight goes to the nearest of 15 values that a 4-bit float has.

One scale for every block of weights, of the flattened matrix, as in bitsandbytes. It costs one pass over the weights.
Scales count 32 bits.

Dettmers et al., QLoRA: Efficient Finetuning of Quantized LLMs, 2023 (arXiv 2305.14314), FP4; the values "e2m1" are
those of the OCP Microscaling Formats Specification, 2023.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hemorrhage.methods import quantization
from hemorrhage.settings import Axis, require, whole

NEEDS: frozenset[str] = frozenset()
AXIS = Axis("group", harmless=None, integer=True, unit="weights per scale")
NEUTRAL = None
EXAMPLE = {"group": 64}
REPAIRS: tuple[str, ...] = ()
TABLES = ("bitsandbytes", "e2m1")


@dataclass(frozen=True)
class Settings:
    """The blocks and the values.

    Attributes:
        group: weights that share a scale, 2 or more.
        table: "bitsandbytes", or "e2m1"; they differ in the smallest value beside 0, 1/192 and 1/12 of the largest.
    """

    group: int = 64
    table: str = "bitsandbytes"

    def __post_init__(self) -> None:
        object.__setattr__(self, "group", whole("group", self.group, 2))
        require(self.table, TABLES, "table")


def apply(model, settings: Settings, data) -> dict[str, Any]:
    """Quantise every target. Raises ValueError if a weight is not finite."""
    from hemorrhage.methods import grids

    size = quantization.TABLE_BITS + quantization.TABLE_SCALE_BITS / settings.group
    table = grids.fp4_table(settings.table)
    return quantization.round_all(
        model, lambda weight: grids.round_to_table(weight, table, settings.group), lambda target: size
    )
