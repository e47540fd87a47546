"""Frustratingly simple decoding, discrete (FSD-d): the likely token that an n-gram model of the text so far avoids.

Among the k likeliest tokens the one with the largest (1 − α) · p − α · q is taken. q is an n-gram model of prompt and
text: each order holds a share β of what the longer ones left, a token that an order has not seen falls through to the
next. α = 0 is greedy search. It costs a walk over the text per row and step. Yang et al. 2023, "A Frustratingly
Simple Decoding Method for Neural Text Generation".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hemorrhage import settings as check
from hemorrhage.settings import Axis

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from hemorrhage.decoding.generation import Rows

AXIS = Axis("alpha", harmless=0, rises=True, unit="weight of the penalty")
STOCHASTIC = False
EXAMPLE: dict[str, object] = {"alpha": 0.6}


@dataclass(frozen=True)
class Settings:
    """Settings of FSD-d.

    Attributes:
        alpha: weight of the penalty, 0 to 1.
        k: number of candidates.
        n: order of the n-gram model.
        beta: share of each order in what the longer ones left.
    """

    alpha: float = 0.6
    k: int = 5
    n: int = 3
    beta: float = 0.9

    def __post_init__(self) -> None:
        """Raise ValueError naming the setting, the value and what is allowed."""
        object.__setattr__(self, "alpha", check.between("alpha", self.alpha, 0, 1))
        object.__setattr__(self, "k", check.whole("k", self.k, 1))
        object.__setattr__(self, "n", check.whole("n", self.n, 1, 10))
        object.__setattr__(self, "beta", check.between("beta", self.beta, 0, 1))


def scores(logits: torch.Tensor, rows: Rows, settings: Settings) -> torch.Tensor:
    """Return (1 − α) · p − α · q of the k likeliest tokens, -inf for the others."""
    import torch

    likeliest, places = logits.softmax(-1).topk(min(settings.k, logits.shape[-1]), -1)
    texts = [[*prompt.tokens, *new] for prompt, new in zip(rows.prompts, rows.tokens.tolist(), strict=True)]
    penalty = torch.tensor(
        [
            penalties(text, candidates, settings.n, settings.beta)
            for text, candidates in zip(texts, places.tolist(), strict=True)
        ],
        device=logits.device,
    )
    contrast = (1 - settings.alpha) * likeliest - settings.alpha * penalty
    return torch.full_like(logits, -float("inf")).scatter(-1, places, contrast)


def penalties(text: Sequence[int], candidates: Sequence[int], n: int, beta: float) -> list[float]:
    """Return the probability of each candidate after text in the n-gram model of text itself."""
    text, totals = list(text), dict.fromkeys(candidates, 0.0)
    if len(text) < n - 1:
        return list(totals.values())
    left = dict.fromkeys(candidates, 1.0)
    for order in range(n - 1, -1, -1):
        followers = [text[i] for i in range(order, len(text)) if text[i - order : i] == text[len(text) - order :]]
        for token in candidates:
            seen = followers.count(token)
            if seen:
                share = seen / len(followers) if order == 0 else beta * seen / (len(followers) + 1)
                totals[token] += left[token] * share
                left[token] *= 1 - beta
    return [totals[token] for token in candidates]
