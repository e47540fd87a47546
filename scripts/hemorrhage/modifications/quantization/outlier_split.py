"""Outlier split: input channels with large values stay exact, the rest of weights and inputs goes to few bits.

A channel is an outlier of a target if |x| passes a threshold on calibration tokens. The other weights are rounded to
nearest on a symmetric grid for every row, the other inputs on a dynamic grid for every token, both fitted without the
outliers. It costs one forward pass of the model as it was. LLM.int8() finds the outliers anew in every batch, so that
what a token gets depends on its neighbours; here they are fixed, and the quantisers are attachments.

Dettmers et al., LLM.int8(): 8-bit Matrix Multiplication for Transformers at Scale, 2022 (arXiv 2208.07339).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hemorrhage.methods import quantization
from hemorrhage.settings import Axis, between, whole

NEEDS = frozenset({"calibration"})
AXIS = Axis("bits", harmless=None, rises=False, integer=True, unit="bits per weight and activation")
NEUTRAL = None
EXAMPLE = {"bits": 8}
REPAIRS: tuple[str, ...] = ()
LARGEST = 1e9  # a threshold that no input passes


@dataclass(frozen=True)
class Settings:
    """What is an outlier, and the grid of the rest.

    Attributes:
        bits: of weights and activations that are no outliers, 2 to 8.
        threshold: |x| above which a channel is an outlier.
        calibration: name of the calibration set.
    """

    bits: int = 8
    threshold: float = 6.0
    calibration: str = "default"

    def __post_init__(self) -> None:
        object.__setattr__(self, "bits", whole("bits", self.bits, 2, 8))
        object.__setattr__(self, "threshold", between("threshold", self.threshold, 0, LARGEST))


def apply(model, settings: Settings, data) -> dict[str, Any]:
    """Quantise every target and its input, without the outliers.

    Raises ValueError if a target's input cannot be reached or a weight is not finite.
    """
    from hemorrhage.architecture import attachments, targets
    from hemorrhage.methods import sizes, tensors

    quantization.require_called(targets.find(model))
    writer = quantization.Writer(model)
    outliers = channels = 0
    for members, peak in quantization.peaks(model, data, settings.calibration):
        weight = quantization.stack(members)
        exact = (peak > settings.threshold).nonzero().flatten()
        rest = weight.index_fill(1, exact, 0)
        quantized = tensors.quantize_rtn(rest, settings.bits, True, None).index_copy_(1, exact, weight[:, exact])
        share = len(exact) / len(peak)
        size = share * sizes.HALF + (1 - share) * settings.bits + sizes.HALF / len(peak)
        writer.write_stack(members, quantized, size)
        outliers, channels = outliers + len(exact), channels + len(peak)
        for target in members:
            attachments.attach(
                model,
                {
                    "kind": "activation_quantizer",
                    "target": target.name,
                    "bits": settings.bits,
                    "grid": "per_token",
                    "scale": None,
                    "exact": exact.tolist(),
                },
            )
    return {
        "bits": settings.bits,
        "activation_bits": settings.bits,
        "outlier_channels": outliers / channels,
        **writer.achieved(),
    }
