"""Frustratingly simple decoding (FSD): the likely token that does not follow a context like this one again.

Among the k likeliest tokens the one with the largest (1 − α) · p − α · q is taken. q of a token is the largest cosine,
cut to 0 to 1, between the last n − 1 hidden states and those before any earlier place of this token: an n-gram model
whose contexts are vectors. α = 0 is greedy search. It costs one product with the hidden states so far. Yang et al.
2023, "A Frustratingly Simple Decoding Method for Neural Text Generation".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hemorrhage import settings as check
from hemorrhage.settings import Axis

if TYPE_CHECKING:
    import torch

    from hemorrhage.decoding.generation import Rows
    from hemorrhage.decoding.reader import Seen

AXIS = Axis("alpha", harmless=0, rises=True, unit="weight of the penalty")
STOCHASTIC = False
EXAMPLE: dict[str, object] = {"alpha": 0.4}
KEEPS = frozenset({"hidden"})


@dataclass(frozen=True)
class Settings:
    """Settings of FSD.

    Attributes:
        alpha: weight of the penalty, 0 to 1.
        k: number of candidates.
        n: order of the n-gram model, 2 or more.
    """

    alpha: float = 0.4
    k: int = 5
    n: int = 2

    def __post_init__(self) -> None:
        """Raise ValueError naming the setting, the value and what is allowed."""
        object.__setattr__(self, "alpha", check.between("alpha", self.alpha, 0, 1))
        object.__setattr__(self, "k", check.whole("k", self.k, 1))
        object.__setattr__(self, "n", check.whole("n", self.n, 2, 10))


def scores(logits: torch.Tensor, rows: Rows, settings: Settings) -> torch.Tensor:
    """Return (1 − α) · p − α · q of the k likeliest tokens, -inf for the others."""
    import torch

    if rows.seen is None:
        raise ValueError("fsd looks at hidden states and runs inside the loop only.")
    likeliest, places = logits.softmax(-1).topk(min(settings.k, logits.shape[-1]), -1)
    penalty = penalties(rows.seen, settings.n, logits.shape[-1]).gather(-1, places)
    contrast = (1 - settings.alpha) * likeliest - settings.alpha * penalty
    return torch.full_like(logits, -float("inf")).scatter(-1, places, contrast)


def penalties(seen: Seen, n: int, vocabulary: int) -> torch.Tensor:
    """Return q of every token, [b, vocabulary] from 0 to 1."""
    from torch.nn.functional import normalize

    hidden, context = seen.states(), n - 1
    result = hidden.new_zeros(len(hidden), vocabulary)
    length = hidden.shape[1]
    if length <= context:
        return result
    # Place j (n - 1 <= j < length) holds a token; its context are the states of the n - 1 places before it.
    before = hidden.unfold(1, context, 1).flatten(2)
    cosines = (normalize(before[:, :-1], dim=-1) @ normalize(before[:, -1:], dim=-1).mT)[..., 0]
    whole = seen.mask[:, : length - context].bool()  # padding is on the left: the first state of the context decides
    cosines = cosines.masked_fill(~whole, 0.0).clamp(0, 1)
    return result.scatter_reduce(1, seen.tokens[:, context:], cosines, "amax", include_self=True)
