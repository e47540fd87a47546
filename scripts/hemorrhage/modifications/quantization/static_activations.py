"""Static activation quantisation: the input of every target goes to one fixed grid.

One step Δ = max|x|/(2^(bits−1) − 1) a target, from the largest absolute input on calibration tokens. Inputs beyond it
are clipped, and a few large channels take the levels from all others: this is what breaks. With a step for every
channel nothing is taken, but integer products cannot sum over channels of other steps: that grid is a yardstick, not
for deployment. Weights stay as they are; the quantisers are attachments of the checkpoint. It costs one forward pass
over the calibration tokens.

Per-tensor static grid of Xiao et al., SmoothQuant, 2022 (arXiv 2211.10438), without its smoothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hemorrhage.methods import quantization
from hemorrhage.settings import Axis, require, whole

NEEDS = frozenset({"calibration"})
AXIS = Axis("bits", harmless=None, rises=False, integer=True, unit="bits per activation")
NEUTRAL = None
EXAMPLE = {"bits": 8}
REPAIRS: tuple[str, ...] = ()
GRIDS = ("per_tensor", "per_channel")


@dataclass(frozen=True)
class Settings:
    """The grid.

    Attributes:
        bits: 2 to 8.
        grid: "per_tensor", one step a target, or "per_channel", one step an input channel of a target.
        calibration: name of the calibration set that gives the largest absolute inputs.
    """

    bits: int = 8
    grid: str = "per_tensor"
    calibration: str = "default"

    def __post_init__(self) -> None:
        object.__setattr__(self, "bits", whole("bits", self.bits, 2, 8))
        require(self.grid, GRIDS, "grid")


def apply(model, settings: Settings, data) -> dict[str, Any]:
    """Attach a quantiser with a fixed step to every target.

    A target whose inputs were all 0 on the calibration tokens takes the largest step of the model, and is counted; a
    channel that was always 0 takes the largest step of its target.

    Raises ValueError if a target's input cannot be reached or a weight is not finite.
    """
    from hemorrhage.architecture import attachments, targets

    quantization.require_called(targets.find(model))
    found = [
        (target.name, peak)
        for members, peak in quantization.peaks(model, data, settings.calibration)
        for target in members
    ]
    largest = max(float(peak.max()) for _, peak in found)
    top = 2 ** (settings.bits - 1) - 1
    for name, peak in found:
        step: float | list[float] = (float(peak.max()) or largest) / top
        if settings.grid == "per_channel":
            step = quantization.short((peak / top).masked_fill(peak == 0, step))
        attachments.attach(
            model,
            {
                "kind": "activation_quantizer",
                "target": name,
                "bits": settings.bits,
                "grid": settings.grid,
                "scale": step,
            },
        )
    return {
        "activation_bits": settings.bits,
        "targets": len(found),
        "largest_input": largest,
        "targets_without_input": sum(not bool(peak.any()) for _, peak in found),
    }
