"""Contrastive search: a likely token whose hidden state is unlike those of the text so far.

Each of the k likeliest tokens is read; the one with the largest (1 − α) · p − α · (largest cosine between its hidden
state and any earlier one) is taken. α = 0 is greedy search. It costs k rows of the model per token. Su et al. 2022, "A
Contrastive Framework for Neural Text Generation".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hemorrhage import settings as check
from hemorrhage.settings import Axis

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from hemorrhage.decoding.generation import Rows
    from hemorrhage.decoding.reader import Seen

AXIS = Axis("alpha", harmless=0, rises=True, unit="weight of the penalty")
STOCHASTIC = False
EXAMPLE: dict[str, object] = {"k": 3}


@dataclass(frozen=True)
class Settings:
    """Settings of contrastive search.

    Attributes:
        alpha: weight of the penalty, 0 to 1.
        k: number of candidates, 1 to 64.
    """

    alpha: float = 0.6
    k: int = 5

    def __post_init__(self) -> None:
        """Raise ValueError naming the setting, the value and what is allowed."""
        object.__setattr__(self, "alpha", check.between("alpha", self.alpha, 0, 1))
        object.__setattr__(self, "k", check.whole("k", self.k, 1, 64))


def generate(model: PreTrainedModel, rows: Rows, settings: Settings, limit: int) -> list[list[int]]:
    """Return the new tokens of every row."""
    import torch

    from hemorrhage.decoding.generation import Reader, grow

    reader = Reader(model, rows.sequences, keep={"hidden"})
    first = torch.arange(len(rows.prompts), device=model.device)

    def choose() -> torch.Tensor:
        likeliest, places = reader.logits.softmax(-1).topk(min(settings.k, reader.logits.shape[-1]), -1)
        count = places.shape[-1]
        reader.reorder(first.repeat_interleave(count))
        reader.read(places.flatten())
        penalty = likeness(reader.seen).view(-1, count)
        best = ((1 - settings.alpha) * likeliest - settings.alpha * penalty).argmax(-1)
        reader.reorder(first * count + best)
        return places.gather(-1, best[:, None])[:, 0]

    return grow(model, rows, [], choose, limit)


def likeness(seen: Seen) -> torch.Tensor:
    """Return the largest cosine between the last hidden state of a row and any one before it, [b]."""
    from torch.nn.functional import normalize

    hidden = normalize(seen.states(), dim=-1)
    cosines = (hidden[:, :-1] @ hidden[:, -1:].mT)[..., 0]
    return cosines.masked_fill(seen.mask[:, :-1] == 0, -1.0).amax(-1)
