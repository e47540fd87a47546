"""Round to nearest: every weight goes to the closest point of a uniform grid of 2^bits levels.

The data-free baseline of weight quantisation. One grid an output channel, or one a group of neighbours in a row.
Weights are written back dense, so that any level can be measured anywhere; ``bits_per_weight`` says what a packed
file would take, scales (16 bits) and zero points included. It costs one pass over the weights.

Formula as in AWQ's code (Lin et al., 2023, arXiv 2306.00978), with a range that always holds 0, as in GPTQ's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hemorrhage.methods import quantization
from hemorrhage.settings import Axis

NEEDS: frozenset[str] = frozenset()
AXIS = Axis("bits", harmless=None, rises=False, integer=True, unit="bits per weight")
NEUTRAL = None
EXAMPLE = {"bits": 4}
REPAIRS: tuple[str, ...] = ()


@dataclass(frozen=True)
class Settings:
    """The grid.

    Attributes:
        bits: 2 to 8.
        symmetric: whether the grid is centred at 0, without zero points.
        group: neighbours of a row that share a grid; None or 0 gives every output channel one grid.
    """

    bits: int = 4
    symmetric: bool = False
    group: int | None = None

    def __post_init__(self) -> None:
        quantization.validate_grid(self)


def refuse(settings: Settings, facts: dict[str, int]) -> None:
    """Raise ValueError if the group does not divide a width, by what a config.json tells."""
    quantization.refuse_facts(settings.group, facts)


def apply(model, settings: Settings, data) -> dict[str, Any]:
    """Quantise every target. Raises ValueError if the group does not divide a width, before any weight is changed."""
    from hemorrhage.architecture import targets
    from hemorrhage.methods import sizes, tensors

    quantization.require_widths(settings.group, targets.find(model))
    effect = quantization.round_all(
        model,
        lambda weight: tensors.quantize_rtn(weight, settings.bits, settings.symmetric, settings.group),
        lambda target: sizes.uniform(settings.bits, settings.symmetric, settings.group or target.in_features),
    )
    return {"bits": settings.bits, **effect}
