"""Locally typical sampling: drawn from the tokens whose surprise is nearest to the expected one.

Tokens are taken in the order of |−ln p − H|, with the entropy H, until they hold a share of the probability; the
likeliest token may be left out. It costs a partial sort per row and step. Meister et al. 2023, "Locally
Typical Sampling".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hemorrhage import settings as check

if TYPE_CHECKING:
    import torch

    from hemorrhage.decoding.generation import Rows

AXIS = None
STOCHASTIC = True
EXAMPLE: dict[str, object] = {"mass": 0.8}


@dataclass(frozen=True)
class Settings:
    """Settings of typical sampling.

    Attributes:
        mass: share of the probability that is kept, 0 to 1.
    """

    mass: float = 0.95

    def __post_init__(self) -> None:
        """Raise ValueError naming the setting, the value and what is allowed."""
        object.__setattr__(self, "mass", check.between("mass", self.mass, 0, 1))


def scores(logits: torch.Tensor, rows: Rows, settings: Settings) -> torch.Tensor:
    """Return the logits of the smallest set of most typical tokens that holds the mass, -inf for the others."""
    import torch

    from hemorrhage.decoding.truncation import beyond_mass

    surprise = -logits.log_softmax(-1)
    probability = torch.exp(-surprise)
    entropy = torch.special.entr(probability).sum(-1, keepdim=True)
    dropped = beyond_mass((surprise - entropy).abs(), probability, settings.mass)
    return logits.masked_fill(dropped, -float("inf"))
