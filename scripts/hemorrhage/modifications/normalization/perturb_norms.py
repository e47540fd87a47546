"""Perturbed norms: the gains of the norms get Gaussian noise, each relative to itself.

Every gain is multiplied by 1 + σ·noise, so that the axis means the same for large and for small gains; where an
architecture keeps the gain as its distance from 1, the gain itself is what is multiplied. Norms hold few parameters and
touch every channel of the residual stream. It costs nothing.

Norm parameters as a place where quantization and tuning hurt: Wei et al., Outlier Suppression, 2022 (arXiv 2209.13325).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hemorrhage.settings import Axis, between, require

NEEDS: frozenset[str] = frozenset()
AXIS = Axis("sigma", harmless=0, unit="relative noise of the gains")
NEUTRAL = {"sigma": 0}
EXAMPLE = {"sigma": 0.1}
REPAIRS: tuple[str, ...] = ()
CHANGES = "norms"
WHICH = ("all", "attention", "mlp", "query_key", "final")


@dataclass(frozen=True)
class Settings:
    """How much noise, and on which norms.

    Attributes:
        sigma: standard deviation of the relative noise, 0 to 10.
        which: "all", or those that serve "attention", "mlp" or "query_key", or the "final" one.
    """

    sigma: float = 0.1
    which: str = "all"

    def __post_init__(self) -> None:
        object.__setattr__(self, "sigma", between("sigma", self.sigma, 0, 10))
        require(self.which, WHICH, "which")


def apply(model, settings: Settings, data) -> dict[str, Any]:
    """Perturb the gains; returns how many norms were changed. Raises ValueError if the model has none of them."""
    from hemorrhage.architecture import norms, randomness

    chosen = norms.chosen(model, settings.which)
    for norm in chosen if settings.sigma else []:
        noise = randomness.normal(norm.module.weight, f"{data.seed} {norm.name}")
        norms.scale_gain(norm.module, 1 + settings.sigma * noise)
    return {"norms": len(chosen)}
