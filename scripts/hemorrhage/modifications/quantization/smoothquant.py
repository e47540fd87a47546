"""SmoothQuant: divide the input channels with large values and multiply their weights, then round both.

s_j = max|x_j|^α / max|w_j|^(1 − α): the inputs' outliers move into the weights, where every row has its own grid.
W·s is rounded to nearest on a symmetric grid for every row, x/s on a dynamic grid for every token or on a static one
for the tensor. The largest inputs come from calibration tokens in one forward pass of the model as it was.

A deployed model folds 1/s into what makes the input. Here the weight is written as quantize(W·s)/s and the quantiser of
the inputs, an attachment, multiplies by s again: the same outputs, for every target. The scales count no bits.

Xiao et al., SmoothQuant: Accurate and Efficient Post-Training Quantization for Large Language Models, 2022 (arXiv
2211.10438).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hemorrhage.methods import quantization
from hemorrhage.settings import Axis, between, require, whole

if TYPE_CHECKING:
    from torch import Tensor

NEEDS = frozenset({"calibration"})
AXIS = Axis("bits", harmless=None, rises=False, integer=True, unit="bits per weight and activation")
NEUTRAL = None
EXAMPLE = {"bits": 8}
REPAIRS: tuple[str, ...] = ()
GRIDS = ("per_token", "per_tensor")
SMALLEST = 1e-5  # of a scale, and of a column's largest weight


@dataclass(frozen=True)
class Settings:
    """The grids, and how far outliers move into the weights.

    Attributes:
        bits: of weights and activations, 2 to 8.
        alpha: 0 (weights as they are, if all are equally large) to 1 (all of the inputs' outliers move).
        grid: of the activations: "per_token" (dynamic) or "per_tensor" (static, from the calibration tokens).
        calibration: name of the calibration set.
    """

    bits: int = 8
    alpha: float = 0.5
    grid: str = "per_token"
    calibration: str = "default"

    def __post_init__(self) -> None:
        object.__setattr__(self, "bits", whole("bits", self.bits, 2, 8))
        object.__setattr__(self, "alpha", between("alpha", self.alpha, 0, 1))
        require(self.grid, GRIDS, "grid")


def apply(model, settings: Settings, data) -> dict[str, Any]:
    """Smooth and quantise every target and its input.

    Raises ValueError if a target's input cannot be reached or a weight is not finite.
    """
    from hemorrhage.architecture import attachments, targets
    from hemorrhage.methods import sizes, tensors

    quantization.require_called(targets.find(model))
    writer = quantization.Writer(model)
    top = 2 ** (settings.bits - 1) - 1
    largest = 1.0
    for members, peak in quantization.peaks(model, data, settings.calibration):
        weight = quantization.stack(members)
        numbers = quantization.short(smoothing(peak, weight, settings.alpha))
        smooth = peak.new_tensor(numbers)
        quantized = tensors.quantize_rtn(weight * smooth, settings.bits, True, None).div_(smooth)
        writer.write_stack(members, quantized, sizes.uniform(settings.bits, True, weight.shape[1]))
        step = None if settings.grid == "per_token" else float((peak / smooth).max()) / top or 1.0
        largest = max(largest, float(smooth.max()))
        for target in members:
            attachments.attach(
                model,
                {
                    "kind": "activation_quantizer",
                    "target": target.name,
                    "bits": settings.bits,
                    "grid": settings.grid,
                    "scale": step,
                    "smooth": numbers,
                },
            )
    return {"bits": settings.bits, "activation_bits": settings.bits, "largest_scale": largest, **writer.achieved()}


def smoothing(peak: Tensor, weight: Tensor, alpha: float) -> Tensor:
    """Return s [in] from the largest |x| [in] and the weights [out, in]; 1 for a channel that was always 0."""
    heaviest = weight.abs().amax(dim=0).clamp(min=SMALLEST)
    scale = (peak.pow(alpha) / heaviest.pow(1 - alpha)).clamp(min=SMALLEST)
    return scale.masked_fill(peak == 0, 1.0)
