"""Diverse beam search: groups of beams, each penalised for the tokens that the groups before it chose at this step.

It costs as many rows of the model as there are beams. One group is beam search. Vijayakumar et al. 2018, "Diverse Beam
Search: Decoding Diverse Solutions from Neural Sequence Models".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hemorrhage import settings as check

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from hemorrhage.decoding.generation import Rows

AXIS = None
STOCHASTIC = False
EXAMPLE: dict[str, object] = {"beams": 4, "groups": 2}


@dataclass(frozen=True)
class Settings:
    """Settings of diverse beam search.

    Attributes:
        beams: number of hypotheses in all, 1 to 64, a multiple of ``groups``.
        groups: number of groups.
        penalty: subtracted from a token's log-probability for every time that an earlier group chose it.
    """

    beams: int = 4
    groups: int = 2
    penalty: float = 1.0

    def __post_init__(self) -> None:
        """Raise ValueError naming the setting, the value and what is allowed."""
        object.__setattr__(self, "beams", check.whole("beams", self.beams, 1, 64))
        object.__setattr__(self, "groups", check.whole("groups", self.groups, 1, self.beams))
        object.__setattr__(self, "penalty", check.between("penalty", self.penalty, 0, 100))
        if self.beams % self.groups:
            raise ValueError(f"groups: {self.beams} beams cannot be divided into {self.groups} equal groups.")


def generate(model: PreTrainedModel, rows: Rows, settings: Settings, limit: int) -> list[list[int]]:
    """Return the new tokens of every row."""
    from hemorrhage.decoding import beams

    return beams.search(model, rows, limit, settings.beams, settings.groups, settings.penalty)
