"""Round to nearest: every weight goes to the closest point of a uniform grid of 2^bits levels.

The data-free baseline of weight quantisation. One grid an output channel, or one a group of neighbours in a row.
Weights are written back dense, so that any level can be measured anywhere; ``bits_per_weight`` says what a packed
file would take, scales (16 bits) and zero points included. It costs one pass over the weights.

Formula as in AWQ's code (Lin et al., 2023, arXiv 2306.00978), with a range that always holds 0, as in GPTQ's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hemorrhage.settings import Axis, whole

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
        object.__setattr__(self, "bits", whole("bits", self.bits, 2, 8))
        if not isinstance(self.symmetric, bool):
            raise ValueError(f"symmetric: {self.symmetric!r} is neither true nor false.")
        group = 0 if self.group is None else whole("group", self.group, 0)
        object.__setattr__(self, "group", group or None)


def refuse(settings: Settings, facts: dict[str, int]) -> None:
    """Raise ValueError if the group does not divide a width, by what a config.json tells."""
    if "hidden_size" in facts:
        _refuse_width(settings.group, "hidden_size", facts["hidden_size"])


def apply(model, settings: Settings, data) -> dict[str, Any]:
    """Quantise every target. Raises ValueError if the group does not divide a width, before any weight is changed."""
    from hemorrhage import targets, tensors

    found = targets.find(model)
    for target in found:
        _refuse_width(settings.group, target.name, target.in_features)
    error = energy = bits = 0.0
    weights = 0
    for target in found:
        weight = tensors.require_finite(target.weight, target.name)
        quantized = tensors.quantize_rtn(weight, settings.bits, settings.symmetric, settings.group)
        lost, whole_energy = tensors.relative_error(weight, quantized)
        target.write(quantized)
        error, energy, weights = error + lost, energy + whole_energy, weights + weight.numel()
        bits += weight.numel() * tensors.bits_per_weight(
            settings.bits, settings.symmetric, settings.group or target.in_features)
    return {"bits": settings.bits, "bits_per_weight": bits / weights, "weights": weights, "targets": len(found),
            "relative_error": (error / energy) ** 0.5 if energy else 0.0}


def _refuse_width(group: int | None, name: str, width: int) -> None:
    if group is not None and width % group:
        raise ValueError(f"group: {group} does not divide the width {width} of {name}.")
