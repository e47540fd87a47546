"""Min-p sampling: drawn from the tokens that have at least a share of the likeliest token's probability.

A share of 0 is the model's own distribution and 1 is greedy search (but for exactly equal maxima). It costs nothing
beside the model. Nguyen et al. 2024, "Turning Up the Heat: Min-p Sampling".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hemorrhage import settings as check
from hemorrhage.settings import Axis

if TYPE_CHECKING:
    import torch

    from hemorrhage.decoding.generation import Rows

AXIS = Axis("share", harmless=1, rises=False, unit="share of the largest probability")
STOCHASTIC = True
EXAMPLE: dict[str, object] = {"share": 0.1}


@dataclass(frozen=True)
class Settings:
    """Settings of min-p sampling.

    Attributes:
        share: of the largest probability that a token needs, 0 to 1.
    """

    share: float = 0.05

    def __post_init__(self) -> None:
        """Raise ValueError naming the setting, the value and what is allowed."""
        object.__setattr__(self, "share", check.between("share", self.share, 0, 1))


def scores(logits: torch.Tensor, rows: Rows, settings: Settings) -> torch.Tensor:
    """Return the logits of the tokens whose probability is large enough, -inf for the others."""
    import math

    if settings.share == 0:
        return logits
    smallest = logits.amax(-1, keepdim=True) + math.log(settings.share)
    return logits.masked_fill(logits < smallest, -float("inf"))
