"""Top-k sampling: drawn from the k likeliest tokens.

k = 1 is greedy search. It costs one partial sort per row and step. Fan, Lewis & Dauphin 2018, "Hierarchical Neural
Story Generation".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hemorrhage import settings as check
from hemorrhage.settings import Axis

if TYPE_CHECKING:
    import torch

    from hemorrhage.decoding.generation import Rows

AXIS = Axis("k", harmless=1, rises=True, integer=True, unit="tokens kept")
STOCHASTIC = True
EXAMPLE: dict[str, object] = {"k": 10}


@dataclass(frozen=True)
class Settings:
    """Settings of top-k sampling.

    Attributes:
        k: number of tokens that are kept, 1 or more; more than the vocabulary keeps all.
    """

    k: int = 50

    def __post_init__(self) -> None:
        """Raise ValueError naming the setting, the value and what is allowed."""
        object.__setattr__(self, "k", check.whole("k", self.k, 1))


def scores(logits: torch.Tensor, rows: Rows, settings: Settings) -> torch.Tensor:
    """Return the logits of exactly k tokens, -inf for the others."""
    import torch

    if settings.k == 1:  # the first of equal maxima, as greedy search takes it
        kept = logits.argmax(-1, keepdim=True)
    else:
        kept = logits.topk(min(settings.k, logits.shape[-1]), -1).indices
    return torch.full_like(logits, -float("inf")).scatter(-1, kept, logits.gather(-1, kept))
