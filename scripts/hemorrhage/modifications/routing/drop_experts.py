"""Dropping experts: each mixture of experts loses those that calibration text uses least.

The weights become smaller; tokens that went to a dropped expert go to the best of those that stay. The number that a
token goes to stays, as far as so many are left. Load balance and entropy of the router on calibration text are
recorded. It costs two forward passes over the calibration tokens.

Lu et al., Not All Experts are Equal: Efficient Expert Pruning and Skipping for Mixture-of-Experts Large Language
Models, 2024 (arXiv 2402.14800); dropping by frequency of use is their baseline.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hemorrhage.settings import Axis, require, whole

NEEDS = frozenset({"calibration"})
AXIS = Axis("experts", harmless=0, integer=True, unit="experts dropped in each block")
NEUTRAL = {"experts": 0}
EXAMPLE = {"experts": 1}
REPAIRS: tuple[str, ...] = ()
CHANGES = "shapes"
BY = ("load", "order")


@dataclass(frozen=True)
class Settings:
    """How many experts go, and which.

    Attributes:
        experts: how many of every mixture, 0 or more; as many as a token goes to must stay.
        by: "load" (the least used first) or "order" (the last first).
        calibration: name of the calibration set on which load and entropy are measured.
    """

    experts: int = 1
    by: str = "load"
    calibration: str = "default"

    def __post_init__(self) -> None:
        object.__setattr__(self, "experts", whole("experts", self.experts, 0))
        require(self.by, BY, "by")


def unsuited(model) -> str | None:
    """Return why the architecture cannot be served: it has no experts."""
    from hemorrhage.architecture import routers

    return routers.unsuited(model)


def apply(model, settings: Settings, data) -> dict[str, Any]:
    """Drop the experts; returns which, and how the routers spread the tokens afterwards.

    Raises ValueError if the model has no experts, or too few would stay.
    """
    from hemorrhage.architecture import blocks, experts, routers

    number = experts.count(routers.required(model)[0].experts)
    needed = routers.active(model)
    if number - settings.experts < needed:
        raise ValueError(f"experts: {settings.experts} of {number} cannot be dropped; each token goes to {needed}.")
    tokens = data.tokens(settings.calibration)
    counts, _ = routers.loads(model, tokens, data.chunk)
    dropped = [_chosen(count.tolist(), settings) for count in counts]
    if settings.experts:
        routers.keep(model, [[index for index in range(number) if index not in gone] for gone in dropped])
        blocks.check(model)
    return {
        "dropped": dropped,
        "experts_before": number,
        "experts": number - settings.experts,
        **routers.balance(model, tokens, data.chunk),
    }


def _chosen(counts: list[float], settings: Settings) -> list[int]:
    """The experts that go, by index."""
    order = sorted(range(len(counts)), key=lambda index: (counts[index], -index) if settings.by == "load" else -index)
    return sorted(order[: settings.experts])
