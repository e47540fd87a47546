"""Dropping norms: a norm no longer measures its input but multiplies it by a fixed number; gain and bias stay.

The number is what the norm did on average on calibration text (``scale: calibrated``), or 1 (``scale: none``: the norm
is gone). It shows how much of a norm's work is to adapt to each token. The order is fixed: from the last norm down, or
from the first one up. Weights cannot say it, so it is an attachment; it costs one forward pass over
the calibration tokens.

Heimersheim, You can remove GPT2's LayerNorm by fine-tuning, 2024 (arXiv 2409.13710), without the fine-tuning.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hemorrhage.settings import Axis, require, whole

NEEDS = frozenset({"calibration"})
AXIS = Axis("norms", harmless=0, integer=True, unit="norms dropped")
NEUTRAL = {"norms": 0}
EXAMPLE = {"norms": 1}
REPAIRS: tuple[str, ...] = ()
WHICH = ("all", "attention", "mlp", "query_key", "final")
SCALES = ("calibrated", "none")
ENDS = ("last", "first")


@dataclass(frozen=True)
class Settings:
    """How many norms go, and which.

    Attributes:
        norms: how many, 0 or more.
        which: "all", or those that serve "attention", "mlp" or "query_key", or the "final" one.
        begin: the end of the model with which it begins: "last" or "first".
        scale: "calibrated" (the mean factor of the norm on calibration text) or "none" (1).
        calibration: name of the calibration set.
    """

    norms: int = 1
    which: str = "all"
    begin: str = "last"
    scale: str = "calibrated"
    calibration: str = "default"

    def __post_init__(self) -> None:
        object.__setattr__(self, "norms", whole("norms", self.norms, 0))
        require(self.which, WHICH, "which")
        require(self.begin, ENDS, "begin")
        require(self.scale, SCALES, "scale")


def apply(model, settings: Settings, data) -> dict[str, Any]:
    """Drop the norms; returns which, and the numbers that they multiply by now.

    Raises ValueError if the model has fewer norms of that kind.
    """
    from hemorrhage.architecture import attachments, norms

    chosen = norms.first(norms.chosen(model, settings.which), settings.norms, settings.begin == "last")
    factors = [1.0] * len(chosen)
    if settings.scale == "calibrated" and chosen:
        factors = norms.mean_factors(model, chosen, data.tokens(settings.calibration), data.chunk)
    for norm, factor in zip(chosen, factors, strict=True):
        attachments.attach(model, {"kind": "norm", "target": norm.name, "form": "fixed", "scale": factor})
    return {"dropped": [norm.name for norm in chosen], "factors": factors}
