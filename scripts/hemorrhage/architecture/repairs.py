"""What may be done to repeated blocks so that they do less harm: the settings of every method that repeats blocks.

Only the standard library is used: the methods are read while the Snakefile is parsed.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from hemorrhage.settings import between, number, require

SCALES = ("none", "sqrt", "fitted")
SCALED = ("copies", "runs")


@dataclasses.dataclass(frozen=True)
class Repair:
    """What is done to repeated blocks.

    Attributes:
        residual_scale: "none", "sqrt" (1/√k for a block that runs k times), "fitted" (the factor in 0 to 1 with the
            lowest loss on the calibration set) or a number from 0 to 1; it multiplies the residual update.
        scaled: what is multiplied: the added "copies", or all "runs" of a repeated block, the original included.
        attenuation: factor on the query and on the key of what is scaled, so that its attention is flatter.
    """

    residual_scale: str | float = "none"
    scaled: str = "copies"
    attenuation: float = 1.0


def check(settings: Any) -> None:
    """Validate the fields of ``Repair`` in a method's settings; raises ValueError naming the field."""
    scale = settings.residual_scale
    if scale not in SCALES:
        try:
            scale = number("residual_scale", scale)
        except ValueError:
            raise ValueError(f"residual_scale: {scale!r} is neither a number nor one of {', '.join(SCALES)}.") from None
        object.__setattr__(settings, "residual_scale", between("residual_scale", scale, 0, 1))
    require(settings.scaled, SCALED, "scaled")
    object.__setattr__(settings, "attenuation", between("attenuation", settings.attenuation, 0, 1))


def of(settings: Any) -> Repair:
    """Return the repair in a method's settings."""
    return Repair(*(getattr(settings, field.name) for field in dataclasses.fields(Repair)))
