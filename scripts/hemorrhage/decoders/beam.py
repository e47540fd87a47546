"""Beam search: the continuation with the largest mean log-probability that a few parallel hypotheses find.

One beam is greedy search. It costs as many rows of the model as there are beams. The same hypotheses, length
normalisation and end as in transformers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hemorrhage import settings as check
from hemorrhage.settings import Axis

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from hemorrhage.decoding.generation import Rows

AXIS = Axis("beams", harmless=1, rises=True, integer=True, unit="beams")
STOCHASTIC = False
EXAMPLE: dict[str, object] = {"beams": 3}


@dataclass(frozen=True)
class Settings:
    """Settings of beam search.

    Attributes:
        beams: number of hypotheses, 1 to 64.
    """

    beams: int = 4

    def __post_init__(self) -> None:
        """Raise ValueError naming the setting, the value and what is allowed."""
        object.__setattr__(self, "beams", check.whole("beams", self.beams, 1, 64))


def generate(model: PreTrainedModel, rows: Rows, settings: Settings, limit: int) -> list[list[int]]:
    """Return the new tokens of every row."""
    from hemorrhage.decoding import beams

    return beams.search(model, rows, limit, settings.beams)
