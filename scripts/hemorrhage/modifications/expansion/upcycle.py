"""Sparse upcycling: every feed-forward part becomes a mixture of experts that are copies of it.

The model becomes the matching mixture-of-experts architecture of transformers (Llama and Mistral: Mixtral, Qwen3:
Qwen3-MoE). The weights of the chosen experts are normalised to a sum of 1, so that with equal experts every router
gives the old function, up to the order of summation. The axis is the noise by which the experts differ, relative to the
spread of each weight: with it the router's choice matters. Load balance and entropy of the router on calibration text
are recorded. It costs the memory of the experts and one forward pass over the calibration tokens.

Komatsuzaki et al., Sparse Upcycling: Training Mixture-of-Experts from Dense Checkpoints, 2023 (arXiv 2212.05055).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hemorrhage.settings import Axis, between, require, whole

NEEDS = frozenset({"calibration"})
AXIS = Axis("sigma", harmless=0, unit="noise of the experts, spread of the weights")
NEUTRAL = {"sigma": 0}
EXAMPLE = {"sigma": 0.1}
REPAIRS: tuple[str, ...] = ()
CHANGES = "shapes"
TOLERANCE = 1e-5  # of the logits with neutral settings: the weighted sum over experts is made in another order
ROUTERS = ("random", "zeros")


@dataclass(frozen=True)
class Settings:
    """How many experts, and how they differ.

    Attributes:
        sigma: standard deviation of the noise on every expert over that of the weight, 0 to 10.
        experts: number of experts, 2 or more.
        active: how many a token goes to.
        router: "random" (as the architecture draws it) or "zeros" (all equal: the first experts are chosen).
        calibration: name of the calibration set on which load and entropy are measured.
    """

    sigma: float = 0.0
    experts: int = 4
    active: int = 2
    router: str = "random"
    calibration: str = "default"

    def __post_init__(self) -> None:
        object.__setattr__(self, "sigma", between("sigma", self.sigma, 0, 10))
        object.__setattr__(self, "experts", whole("experts", self.experts, 2))
        object.__setattr__(self, "active", whole("active", self.active, 1))
        if self.active > self.experts:
            raise ValueError(f"active: {self.active} of {self.experts} experts cannot be active.")
        require(self.router, ROUTERS, "router")


def unsuited(model) -> str | None:
    """Return why the architecture cannot be upcycled: transformers has no mixture of experts that matches it."""
    from hemorrhage.architecture import upcycling

    return upcycling.unsuited(model)


def apply(model, settings: Settings, data) -> dict[str, Any]:
    """Turn the model into a mixture of experts; returns its architecture and how the router spreads the tokens.

    Raises ValueError if no architecture matches, or an earlier step left attachments on the model.
    """
    from hemorrhage.architecture import routers, upcycling

    upcycling.upcycle(model, settings.experts, settings.active, settings.router == "zeros", settings.sigma, data.seed)
    return {
        "architecture": type(model).__name__,
        "experts": settings.experts,
        **routers.balance(model, data.tokens(settings.calibration), data.chunk),
    }
