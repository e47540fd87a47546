"""INT8: every weight goes to the nearest of 255 points, with one scale for an output channel or for the matrix.

The grid of bitsandbytes' and torchao's 8-bit weights, without outliers (``outlier_split``) and without quantised
activations. It costs one pass over the weights.

Vector-wise grid of Dettmers et al., LLM.int8(), 2022 (arXiv 2208.07339).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hemorrhage.methods import quantization
from hemorrhage.settings import require

NEEDS: frozenset[str] = frozenset()
AXIS = None
NEUTRAL = None
EXAMPLE = {"scale": "per_channel"}
REPAIRS: tuple[str, ...] = ()
SCALES = ("per_channel", "per_tensor")


@dataclass(frozen=True)
class Settings:
    """The grid.

    Attributes:
        scale: "per_channel", one for every output channel, or "per_tensor".
    """

    scale: str = "per_channel"

    def __post_init__(self) -> None:
        require(self.scale, SCALES, "scale")


def apply(model, settings: Settings, data) -> dict[str, Any]:
    """Quantise every target. Raises ValueError if a weight is not finite."""
    from hemorrhage.methods import tensors

    by_row = settings.scale == "per_channel"

    def rounded(weight):
        rows = weight if by_row else weight.reshape(1, -1)
        return tensors.quantize_rtn(rows, 8, True, None).reshape(weight.shape)

    return quantization.round_all(model, rounded, lambda target: quantization.byte_size(target, by_row))
