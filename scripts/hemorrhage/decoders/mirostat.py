"""Mirostat: top-k sampling whose k is steered so that the surprise of the text stays near a target.

At each step the exponent of a Zipf law is fitted to the 100 likeliest tokens, k follows from it and from the largest
surprise allowed now (at first twice the target), and the surprise of the token that was drawn moves that bound:
bound −= rate · (surprise − target), in bits. It costs one partial sort per row and step. Basu et al. 2021, "Mirostat: A
Neural Text Decoding Algorithm that Directly Controls Perplexity".
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hemorrhage import settings as check

if TYPE_CHECKING:
    import torch

    from hemorrhage.decoding.generation import Rows

AXIS = None
STOCHASTIC = True
EXAMPLE: dict[str, object] = {"target": 3}
FITTED = 100  # ratios of neighbouring probabilities behind the exponent
TINY = 1e-9
SEQUENTIAL = True


@dataclass(frozen=True)
class Settings:
    """Settings of Mirostat.

    Attributes:
        target: surprise to hold, in bits (τ).
        rate: how fast the bound follows the surprise (η, the learning rate).
    """

    target: float = 3.0
    rate: float = 1.0

    def __post_init__(self) -> None:
        """Raise ValueError naming the setting, the value and what is allowed."""
        object.__setattr__(self, "target", check.between("target", self.target, 0, 100))
        object.__setattr__(self, "rate", check.between("rate", self.rate, 0, 10))


def scores(logits: torch.Tensor, rows: Rows, settings: Settings) -> torch.Tensor:
    """Return the logits of the k likeliest tokens of every row, -inf for the others."""
    import torch

    surprise = -logits.log_softmax(-1) / math.log(2)
    bounds = _bounds(rows, settings, len(logits))
    rows.state["surprise"] = surprise
    likeliest = logits.topk(min(FITTED + 1, logits.shape[-1]), -1).values
    shares = (likeliest - logits.logsumexp(-1, keepdim=True)).exp().tolist()
    result = torch.full_like(logits, -float("inf"))
    for row, bound in enumerate(bounds):
        count = kept(exponent(shares[row]), bound, logits.shape[-1])
        places = logits[row].topk(count).indices
        result[row, places] = logits[row, places]
    return result


def exponent(shares: list[float]) -> float:
    """Return the exponent of the Zipf law of the largest probabilities, largest first; 0 if there is only one."""
    steps = [math.log((place + 2) / (place + 1)) for place in range(len(shares) - 1)]
    ratios = [math.log(max(a / (b + TINY), 1.0)) for a, b in itertools.pairwise(shares)]
    return sum(b * t for b, t in zip(ratios, steps, strict=True)) / sum(t * t for t in steps) if steps else 0.0


def kept(zipf: float, bound: float, vocabulary: int) -> int:
    """Return how many tokens stay for a bound on the surprise in bits; all where the law gives no number."""
    try:
        gap = zipf - 1
        count = (gap * 2**bound / (1 - vocabulary**-gap)) ** (1 / zipf)
        return min(max(round(count), 0), vocabulary - 1) + 1
    except (ArithmeticError, TypeError, ValueError):  # TypeError: the root of a negative number is complex
        return vocabulary


def _bounds(rows: Rows, settings: Settings, count: int) -> list[float]:
    """The bound of every row now: the last one, moved by the surprise of the token that was drawn since."""
    bounds = rows.state.get("bounds", [2 * settings.target] * count)
    if rows.step and "surprise" in rows.state:
        drawn = rows.state["surprise"].gather(-1, rows.tokens[:, -1:])[:, 0].tolist()
        bounds = [
            bound - settings.rate * (bits - settings.target) if math.isfinite(bits) else bound
            for bound, bits in zip(bounds, drawn, strict=True)
        ]
    rows.state["bounds"] = bounds
    return bounds
