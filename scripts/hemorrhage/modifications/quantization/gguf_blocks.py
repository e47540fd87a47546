"""GGUF blocks: every weight comes back from llama.cpp's legacy types, in blocks of 32 with a scale in half precision.

4, 5 or 8 bits, without a minimum (Q4_0, Q5_0, Q8_0) or with a floating one (Q4_1, Q5_1); the gguf package rounds, as
llama.cpp does without an importance matrix. It costs one pass over the weights. Embedding and head stay as they are.
A model that was itself dequantised from Q4_1 comes back from Q4_1 unchanged: that says nothing about 4 bits.

llama.cpp, ggml quantization types (github.com/ggml-org/llama.cpp).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hemorrhage.methods import quantization
from hemorrhage.planning import local_config
from hemorrhage.settings import Axis, whole

NEEDS: frozenset[str] = frozenset()
AXIS = Axis("bits", harmless=None, rises=False, integer=True, unit="bits per weight")
NEUTRAL = None
EXAMPLE = {"bits": 4}
REPAIRS: tuple[str, ...] = ()
TYPES = {(4, False): "Q4_0", (4, True): "Q4_1", (5, False): "Q5_0", (5, True): "Q5_1", (8, False): "Q8_0"}
BLOCK = 32


@dataclass(frozen=True)
class Settings:
    """The type.

    Attributes:
        bits: 4, 5 or 8.
        minimum: whether a block has a minimum beside its scale; 8 bits has none.
    """

    bits: int = 4
    minimum: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "bits", whole("bits", self.bits, 4, 8))
        quantization.flag("minimum", self.minimum)
        if (self.bits, self.minimum) not in TYPES:
            raise ValueError(
                f"bits: {self.bits} with minimum {self.minimum} is no type in blocks of {BLOCK}; there "
                "are 4, 5 and 8 bits without a minimum, 4 and 5 with one."
            )


def refuse(settings: Settings, facts: dict[str, int]) -> None:
    """Raise ValueError if blocks do not divide a width, by what a config.json tells."""
    for name, width in local_config.target_widths(facts).items():
        _refuse_width(name, width)


def apply(model, settings: Settings, data) -> dict[str, Any]:
    """Quantise every target. Raises ValueError if blocks do not divide a width or a weight is not finite."""
    from hemorrhage.architecture import targets
    from hemorrhage.methods import grids, sizes

    for target in targets.find(model):
        _refuse_width(target.name, target.in_features)
    form = TYPES[settings.bits, settings.minimum]
    size = settings.bits + sizes.HALF * (1 + settings.minimum) / BLOCK
    effect = quantization.round_all(model, lambda weight: grids.round_to_gguf(weight, form), lambda target: size)
    return {"type": form, **effect}


def _refuse_width(name: str, width: int) -> None:
    if width % BLOCK:
        raise ValueError(f"GGUF's blocks of {BLOCK} weights do not divide the width {width} of {name}.")
