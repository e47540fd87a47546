"""Eta sampling: drawn from the tokens above a cut-off that sinks where the distribution is flat.

The cut-off is min(ε, √ε · exp(−H)) with the entropy H of the distribution. It costs one entropy per row and step.
Hewitt, Manning & Liang 2022, "Truncation Sampling as Language Model Desmoothing".
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
EXAMPLE: dict[str, object] = {"epsilon": 0.01}


@dataclass(frozen=True)
class Settings:
    """Settings of eta sampling.

    Attributes:
        epsilon: the largest cut-off, a probability from 0 to 1; 0 keeps every token.
    """

    epsilon: float = 3e-4

    def __post_init__(self) -> None:
        """Raise ValueError naming the setting, the value and what is allowed."""
        object.__setattr__(self, "epsilon", check.between("epsilon", self.epsilon, 0, 1))


def scores(logits: torch.Tensor, rows: Rows, settings: Settings) -> torch.Tensor:
    """Return the logits of the likeliest token and of those above the cut-off, -inf for the others."""
    import torch

    probability = logits.softmax(-1)
    entropy = torch.special.entr(probability).sum(-1, keepdim=True)
    cutoff = (settings.epsilon**0.5 * torch.exp(-entropy)).clamp(max=settings.epsilon)
    dropped = (probability < cutoff).scatter(-1, probability.argmax(-1, keepdim=True), False)
    return logits.masked_fill(dropped, -float("inf"))
