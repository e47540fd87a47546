"""Rotary positions scaled, as servers do to reach a longer context without training.

``linear`` divides every position by the factor; ``ntk`` raises the base, so that fast frequencies stay and slow ones
are stretched; ``yarn`` stretches frequency by frequency and sharpens attention. Beyond the trained length they rescue,
within it they cost something, and that price is measured here. Config and rotary modules are changed, so that plain
transformers loads the same model. It costs nothing.

Chen et al., Position Interpolation, 2023 (arXiv 2306.15595); bloc97, NTK-aware scaled RoPE, 2023; Peng et al., YaRN,
2023 (arXiv 2309.00071).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hemorrhage.settings import Axis, between, require

NEEDS: frozenset[str] = frozenset()
AXIS = Axis("factor", harmless=1, unit="factor on the context length")
NEUTRAL = {"factor": 1}
EXAMPLE = {"factor": 4}
REPAIRS: tuple[str, ...] = ()
CHANGES = "config"
KINDS = ("linear", "ntk", "yarn")


@dataclass(frozen=True)
class Settings:
    """How far the context is stretched, and how.

    Attributes:
        factor: the new context length over the trained one, 1 to 1000.
        kind: "linear", "ntk" or "yarn".
    """

    factor: float = 2.0
    kind: str = "linear"

    def __post_init__(self) -> None:
        object.__setattr__(self, "factor", between("factor", self.factor, 1, 1000))
        require(self.kind, KINDS, "kind")


def unsuited(model) -> str | None:
    """Return why the architecture cannot be served: it has no rotary positions, or scaled ones already."""
    from hemorrhage.architecture import rotary

    return rotary.unsuited(model)


def apply(model, settings: Settings, data) -> dict[str, Any]:
    """Scale the positions; returns the new parameters.

    Raises ValueError if the model has no plain rotary positions.
    """
    from hemorrhage.architecture import rotary

    reason = rotary.unsuited(model)
    if reason:
        raise ValueError(reason)
    if settings.factor == 1:
        return {"rope_parameters": None}
    return {"rope_parameters": rotary.rescale(model, settings.kind, settings.factor)}
