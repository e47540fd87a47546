"""Another epsilon in every norm: a common difference between implementations, taken as far as it goes.

The epsilon is added to the mean square before the root; multiplied by a factor it shrinks what is small, and the norm
stops normalising once it is above the mean square of its input. Config and modules are changed, so that plain
transformers loads the same model. It costs nothing.

Zhang and Sennrich, Root Mean Square Layer Normalization, 2019 (arXiv 1910.07467).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hemorrhage.settings import Axis, between

NEEDS: frozenset[str] = frozenset()
AXIS = Axis("factor", harmless=1, unit="factor on epsilon")
NEUTRAL = {"factor": 1}
EXAMPLE = {"factor": 1e4}
REPAIRS: tuple[str, ...] = ()
CHANGES = "config"


@dataclass(frozen=True)
class Settings:
    """How much the epsilon grows.

    Attributes:
        factor: multiplies every epsilon, 1e-6 to 1e12.
    """

    factor: float = 10.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "factor", between("factor", self.factor, 1e-6, 1e12))


def unsuited(model) -> str | None:
    """Return why the architecture cannot be served: its config does not hold the epsilon."""
    from hemorrhage.architecture import norms

    if not norms.epsilon_keys(model):
        return f"{type(model).__name__}: its config does not hold the epsilon of its norms, so another cannot be saved."
    return None


def apply(model, settings: Settings, data) -> dict[str, Any]:
    """Multiply the epsilons; returns old and new ones by the config's key.

    Raises ValueError if the config does not hold the epsilon.
    """
    from hemorrhage.architecture import norms

    reason = unsuited(model)
    if reason:
        raise ValueError(reason)
    keys = norms.epsilon_keys(model)
    config = model.config.get_text_config()
    before = {key: float(getattr(config, key)) for key in keys}
    for module in model.modules():
        name = norms.epsilon(module) if norms.is_norm(module) else None
        if name is not None and getattr(module, name) in before.values():
            setattr(module, name, getattr(module, name) * settings.factor)
    for key, value in before.items():
        setattr(config, key, value * settings.factor)
    return {"epsilon_before": before, "epsilon": {key: value * settings.factor for key, value in before.items()}}
