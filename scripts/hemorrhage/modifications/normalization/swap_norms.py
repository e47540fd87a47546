"""Swapped norms: RMS norms become layer norms (the mean over channels is subtracted), layer norms become RMS norms.

Gain and bias stay, and so does the epsilon; what changes is whether the mean of the channels counts. Weights cannot say
it, so it is an attachment. It costs nothing.

Zhang and Sennrich, Root Mean Square Layer Normalization, 2019 (arXiv 1910.07467).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hemorrhage.settings import Axis, require, whole

NEEDS: frozenset[str] = frozenset()
AXIS = Axis("norms", harmless=0, integer=True, unit="norms swapped")
NEUTRAL = {"norms": 0}
EXAMPLE = {"norms": 2}
REPAIRS: tuple[str, ...] = ()
WHICH = ("all", "attention", "mlp", "query_key", "final")
ENDS = ("last", "first")


@dataclass(frozen=True)
class Settings:
    """How many norms are swapped, and which.

    Attributes:
        norms: how many, 0 or more.
        which: "all", or those that serve "attention", "mlp" or "query_key", or the "final" one.
        begin: the end of the model with which it begins: "last" or "first".
    """

    norms: int = 1
    which: str = "all"
    begin: str = "last"

    def __post_init__(self) -> None:
        object.__setattr__(self, "norms", whole("norms", self.norms, 0))
        require(self.which, WHICH, "which")
        require(self.begin, ENDS, "begin")


def apply(model, settings: Settings, data) -> dict[str, Any]:
    """Swap the norms; returns which, and what each is now.

    Raises ValueError if the model has fewer norms of that kind.
    """
    from hemorrhage.architecture import attachments, norms

    chosen = norms.first(norms.chosen(model, settings.which), settings.norms, settings.begin == "last")
    forms = ["rms" if norms.subtracts_mean(norm.module) else "layer" for norm in chosen]
    for norm, form in zip(chosen, forms, strict=True):
        attachments.attach(model, {"kind": "norm", "target": norm.name, "form": form, "scale": None})
    return {"swapped": [norm.name for norm in chosen], "forms": forms}
