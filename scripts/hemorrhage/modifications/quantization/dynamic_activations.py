"""Dynamic activation quantisation: every token's input to a target gets its own grid at run time.

The step is Δ_t = max_j|x_tj|/(2^(bits−1) − 1), so that no value is clipped and a token with large inputs does not
coarsen the others. It needs no calibration; in deployment it costs one maximum a token and target. Weights stay as
they are; the quantisers are attachments of the checkpoint.

Per-token dynamic grid of Yao et al., ZeroQuant, 2022 (arXiv 2206.01861).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hemorrhage.settings import Axis, whole

NEEDS: frozenset[str] = frozenset()
AXIS = Axis("bits", harmless=None, rises=False, integer=True, unit="bits per activation")
NEUTRAL = None
EXAMPLE = {"bits": 8}
REPAIRS = ("static_activations",)


@dataclass(frozen=True)
class Settings:
    """The grid.

    Attributes:
        bits: 2 to 8.
    """

    bits: int = 8

    def __post_init__(self) -> None:
        object.__setattr__(self, "bits", whole("bits", self.bits, 2, 8))


def apply(model, settings: Settings, data) -> dict[str, Any]:
    """Attach a per-token quantiser to every target.

    Raises ValueError if a target's input cannot be reached or a weight is not finite.
    """
    from hemorrhage.architecture import attachments, targets
    from hemorrhage.methods import quantization

    found = targets.find(model)
    quantization.require_called(found)
    for target in found:
        attachments.attach(
            model,
            {
                "kind": "activation_quantizer",
                "target": target.name,
                "bits": settings.bits,
                "grid": "per_token",
                "scale": None,
            },
        )
    return {"activation_bits": settings.bits, "targets": len(found)}
