"""What quantised weights take in a packed file: codes, scales and zero points, over the targets and over the model.

Checkpoints of this project are dense, so that any method can be measured anywhere; these numbers are computed. The
bytes of a deployed format are measured: of the file that is written (``deployed``) or loaded (``given``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

HALF = 16  # bits of a scale, and of a weight that is left as it is: deployed files store both in half precision
INDEX = 32  # bits of the index by which a column finds its group


def uniform(bits: int, symmetric: bool, group: int) -> float:
    """Return the bits a weight takes on a uniform grid: its code, and its share of the scale and the zero point.

    Args:
        bits: of a code; a zero point takes as many.
        symmetric: True if there is no zero point.
        group: weights that share a scale.
    """
    return bits + (HALF + (0 if symmetric else bits)) / group


class Sizes:
    """Adds up what the targets take, and reports it.

    Args:
        model: the model whose targets are quantised; everything else in it counts ``HALF`` bits a weight, and a
            tied embedding counts once.
    """

    def __init__(self, model: nn.Module) -> None:
        self.parameters = sum(parameter.numel() for parameter in model.parameters())
        self.weights = 0
        self.bits = 0.0

    def add(self, weights: int, bits_per_weight: float) -> None:
        """Count a target of ``weights`` weights."""
        self.weights += weights
        self.bits += weights * bits_per_weight

    def achieved(self) -> dict[str, float]:
        """Return bits per weight of the targets, bits per parameter of the whole model, and the number of weights."""
        rest = (self.parameters - self.weights) * HALF
        return {
            "bits_per_weight": self.bits / self.weights,
            "bits_per_parameter": (self.bits + rest) / self.parameters,
            "weights": self.weights,
        }
