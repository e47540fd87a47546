"""Greedy search: the likeliest token at every step; the decoder that every other one is compared with.

It costs nothing beside the model, has no setting and no noise, so two greedy texts of the same weights are equal.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from hemorrhage.decoding.generation import Rows

AXIS = None
STOCHASTIC = False
EXAMPLE: dict[str, object] = {}


@dataclass(frozen=True)
class Settings:
    """No settings."""


def scores(logits: torch.Tensor, rows: Rows, settings: Settings) -> torch.Tensor:
    """Return the logits as they are."""
    return logits
