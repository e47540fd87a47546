"""Temperature sampling: tokens drawn from softmax(logits / T) over the whole vocabulary.

T = 1 is the model's own distribution and T = 0 is greedy search exactly (the first token of equal ones included).
It costs one draw of noise per token of the vocabulary and step. Ackley, Hinton & Sejnowski 1985.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hemorrhage import settings as check
from hemorrhage.settings import Axis

if TYPE_CHECKING:
    import torch

    from hemorrhage.decoding.generation import Rows

AXIS = Axis("temperature", harmless=0, rises=True, unit="temperature")
STOCHASTIC = True
EXAMPLE: dict[str, object] = {"temperature": 0.8}
SMALLEST = 1e-3  # below it logits / T leaves float32; 0 says what is meant


@dataclass(frozen=True)
class Settings:
    """Settings of temperature sampling.

    Attributes:
        temperature: 0, or 0.001 to 100.
    """

    temperature: float = 1.0

    def __post_init__(self) -> None:
        """Raise ValueError naming the setting, the value and what is allowed."""
        value = check.between("temperature", self.temperature, 0, 100)
        if 0 < value < SMALLEST:
            raise ValueError(f"temperature: {self.temperature!r} is too small; use 0 (greedy) or {SMALLEST:g} or more.")
        object.__setattr__(self, "temperature", value)


def scores(logits: torch.Tensor, rows: Rows, settings: Settings) -> torch.Tensor:
    """Return (logits - max) / T; for T = 0 everything but the first maximum is -inf."""
    if settings.temperature > 0:
        return (logits - logits.amax(-1, keepdim=True)) / settings.temperature
    best = logits.argmax(-1, keepdim=True)
    return logits.new_full(logits.shape, -float("inf")).scatter(-1, best, 0.0)
