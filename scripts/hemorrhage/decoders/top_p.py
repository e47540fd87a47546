"""Top-p (nucleus) sampling: drawn from the likeliest tokens that together hold a share p of the probability.

p = 1 is the model's own distribution and p = 0 is greedy search. It costs a partial sort per row and step.
Holtzman et al. 2020, "The Curious Case of Neural Text Degeneration".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hemorrhage import settings as check
from hemorrhage.settings import Axis

if TYPE_CHECKING:
    import torch

    from hemorrhage.decoding.generation import Rows

AXIS = Axis("p", harmless=0, rises=True, unit="share of probability")
STOCHASTIC = True
EXAMPLE: dict[str, object] = {"p": 0.9}


@dataclass(frozen=True)
class Settings:
    """Settings of top-p sampling.

    Attributes:
        p: share of the probability that is kept, 0 to 1.
    """

    p: float = 0.95

    def __post_init__(self) -> None:
        """Raise ValueError naming the setting, the value and what is allowed."""
        object.__setattr__(self, "p", check.between("p", self.p, 0, 1))


def scores(logits: torch.Tensor, rows: Rows, settings: Settings) -> torch.Tensor:
    """Return the logits of the smallest set of tokens that holds p, -inf for the others."""
    from hemorrhage.decoding.truncation import beyond_mass

    return logits.masked_fill(beyond_mass(-logits, logits.softmax(-1), settings.p), -float("inf"))
