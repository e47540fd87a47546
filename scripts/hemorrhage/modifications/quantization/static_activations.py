"""Static activation quantisation: the input of every target goes to one fixed grid.

One step Δ = max|x|/(2^(bits−1) − 1) a target, from the largest absolute input on calibration tokens. Inputs beyond it
are clipped, and a few large channels take the levels from all others: this is what breaks. Weights stay as they are;
the quantisers are attachments of the checkpoint. It costs one forward pass over the calibration tokens.

Per-tensor static grid of Xiao et al., SmoothQuant, 2022 (arXiv 2211.10438), without its smoothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hemorrhage.settings import Axis, whole

NEEDS = frozenset({"calibration"})
AXIS = Axis("bits", harmless=None, rises=False, integer=True, unit="bits per activation")
NEUTRAL = None
EXAMPLE = {"bits": 8}
REPAIRS: tuple[str, ...] = ()


@dataclass(frozen=True)
class Settings:
    """The grid.

    Attributes:
        bits: 2 to 8.
        calibration: name of the calibration set that gives the largest absolute inputs.
    """

    bits: int = 8
    calibration: str = "default"

    def __post_init__(self) -> None:
        object.__setattr__(self, "bits", whole("bits", self.bits, 2, 8))


def apply(model, settings: Settings, data) -> dict[str, Any]:
    """Attach a quantiser with a fixed step to every target. Raises ValueError if a target's input cannot be reached.

    A target whose inputs were all 0 on the calibration tokens takes the largest step of the model, and is counted.
    """
    from hemorrhage import attachments, calibration

    peaks: dict[str, float] = {}

    def visit(group) -> None:
        peak = float(group.absolute_max().max())
        peaks.update({target.name: peak for target in group.targets})

    calibration.walk(model, data.tokens(settings.calibration), visit, chunk=data.chunk, statistics=("absolute_max",))
    largest = max(peaks.values())
    for name, peak in peaks.items():
        step = (peak or largest) / (2 ** (settings.bits - 1) - 1)
        attachments.attach(model, {"kind": "activation_quantizer", "target": name, "bits": settings.bits,
                                   "grid": "per_tensor", "scale": step})
    return {"activation_bits": settings.bits, "targets": len(peaks), "largest_input": largest,
            "targets_without_input": sum(peak == 0 for peak in peaks.values())}
