"""FP8: every weight is cast to an 8-bit float, scaled so that the largest weight is the largest number.

It costs one pass over the weights.

Micikevicius et al., FP8 Formats for Deep Learning, 2022 (arXiv 2209.05433).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hemorrhage.methods import quantization
from hemorrhage.settings import require

NEEDS: frozenset[str] = frozenset()
AXIS = None
NEUTRAL = None
EXAMPLE = {"form": "e4m3"}
REPAIRS: tuple[str, ...] = ()
FORMS = ("e4m3", "e5m2")
SCALES = ("per_channel", "per_tensor")


@dataclass(frozen=True)
class Settings:
    """The number format and its scale.

    Attributes:
        form: "e4m3" (3 bits of mantissa) or "e5m2" (2 bits, a wider range).
        scale: "per_channel", one for every output channel, or "per_tensor".
    """

    form: str = "e4m3"
    scale: str = "per_channel"

    def __post_init__(self) -> None:
        require(self.form, FORMS, "form")
        require(self.scale, SCALES, "scale")


def apply(model, settings: Settings, data) -> dict[str, Any]:
    """Quantise every target. Raises ValueError if a weight is not finite."""
    from hemorrhage.methods import grids

    by_row = settings.scale == "per_channel"
    return quantization.round_all(
        model,
        lambda weight: grids.round_to_float8(weight, settings.form, by_row),
        lambda target: quantization.byte_size(target, by_row),
    )
