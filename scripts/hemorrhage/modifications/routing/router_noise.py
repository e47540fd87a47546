"""Router noise: Gaussian noise on the weights that choose the experts, relative to their own spread.

Routing is a choice, so a small error of the router sends a token to another expert altogether; the experts themselves
stay as they are. Load balance and entropy of the router on calibration text are recorded, before
and after. It costs two forward passes over the calibration tokens.

Noise on router weights as a test of robustness: Fedus et al., Switch Transformers, 2022 (arXiv 2101.03961), whose
jitter is noise on the router's input.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hemorrhage.settings import Axis, between

NEEDS = frozenset({"calibration"})
AXIS = Axis("sigma", harmless=0, unit="noise of the router, spread of its weights")
NEUTRAL = {"sigma": 0}
EXAMPLE = {"sigma": 0.5}
REPAIRS: tuple[str, ...] = ()
CHANGES = "routers"


@dataclass(frozen=True)
class Settings:
    """How noisy the router is.

    Attributes:
        sigma: standard deviation of the noise over that of the router's weights, 0 to 100.
        calibration: name of the calibration set on which load and entropy are measured.
    """

    sigma: float = 0.1
    calibration: str = "default"

    def __post_init__(self) -> None:
        object.__setattr__(self, "sigma", between("sigma", self.sigma, 0, 100))


def unsuited(model) -> str | None:
    """Return why the architecture cannot be served: it has no experts."""
    from hemorrhage.architecture import routers

    return routers.unsuited(model)


def apply(model, settings: Settings, data) -> dict[str, Any]:
    """Add the noise; returns how the routers spread the tokens before and after.

    Raises ValueError if the model has no experts.
    """
    from hemorrhage.architecture import randomness, routers

    tokens = data.tokens(settings.calibration)
    before = routers.balance(model, tokens, data.chunk)
    if settings.sigma:
        for mixture in routers.required(model):
            weight = mixture.router.weight.detach()
            weight.copy_(randomness.noisy(weight, settings.sigma, f"{data.seed} {mixture.name}"))
    after = routers.balance(model, tokens, data.chunk) if settings.sigma else before
    return {**{f"{name}_before": value for name, value in before.items()}, **after}
