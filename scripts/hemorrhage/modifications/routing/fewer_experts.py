"""Fewer active experts: each token of a mixture of experts goes to fewer of them than it was trained for.

The cheapest change when a mixture is served: computation falls with the number of active experts, memory does not. The
axis is the number of experts that each token loses. Load balance and entropy of the router on calibration text are
recorded. It costs one forward pass over the calibration tokens.

Lu et al., Not All Experts are Equal: Efficient Expert Pruning and Skipping for Mixture-of-Experts Large Language
Models, 2024 (arXiv 2402.14800).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hemorrhage.settings import Axis, whole

NEEDS = frozenset({"calibration"})
AXIS = Axis("experts", harmless=0, integer=True, unit="experts fewer for each token")
NEUTRAL = {"experts": 0}
EXAMPLE = {"experts": 1}
REPAIRS: tuple[str, ...] = ()
CHANGES = "config"


@dataclass(frozen=True)
class Settings:
    """How many experts each token loses.

    Attributes:
        experts: how many, 0 or more; at least one must stay.
        calibration: name of the calibration set on which load and entropy are measured.
    """

    experts: int = 1
    calibration: str = "default"

    def __post_init__(self) -> None:
        object.__setattr__(self, "experts", whole("experts", self.experts, 0))


def unsuited(model) -> str | None:
    """Return why the architecture cannot be served: it has no experts."""
    from hemorrhage.architecture import routers

    return routers.unsuited(model)


def apply(model, settings: Settings, data) -> dict[str, Any]:
    """Reduce the active experts; returns how many there are and how the router spreads the tokens.

    Raises ValueError if the model has no experts, or none would stay active.
    """
    from hemorrhage.architecture import routers

    routers.required(model)
    before = routers.active(model)
    if settings.experts >= before:
        raise ValueError(f"experts: {settings.experts} of {before} active experts cannot go; at least one must stay.")
    if settings.experts:
        routers.set_active(model, before - settings.experts)
    return {
        "active_before": before,
        "active": before - settings.experts,
        **routers.balance(model, data.tokens(settings.calibration), data.chunk),
    }
