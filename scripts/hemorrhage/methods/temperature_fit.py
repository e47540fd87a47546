"""Fitting one factor on a model's logits so that its distributions come closest to a reference's.

The mean KL(p ‖ softmax(βz)) over tokens is convex in β = 1/T: its slope is E_q[z] − E_p[z], its curvature Var_q[z].
Newton's method with a bracket finds the minimum. Logits are made in chunks and never kept: only their sums are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hemorrhage.measuring import divergence

CHUNK = 256  # tokens whose logits exist at a time: 50 MB for a vocabulary of 50 000
LOW, HIGH = 1 / 64, 64.0  # a factor beyond these is no temperature but a broken model
TOLERANCE = 1e-3  # of ln β in the last step; what is left after a Newton step is of the order of its square
LONGEST = 40
SPARSE = 8  # the first search looks at every eighth token: passes through a large head are what a fit costs


@dataclass(frozen=True)
class Side:
    """One model on the fit text.

    Attributes:
        head: makes float32 logits [n, V] of hidden states [n, d].
        hidden: [tokens, d] inputs of the output embedding.
    """

    head: Callable[[Tensor], Tensor]
    hidden: Tensor

    def logits(self, chunk: int = CHUNK) -> Iterator[Tensor]:
        """Yield float32 logits [up to ``chunk``, V] in order."""
        for part in self.hidden.split(chunk):
            yield self.head(part)

    def sparse(self) -> Side:
        """The same model at every eighth token."""
        return Side(self.head, self.hidden[::SPARSE])


@torch.no_grad()
def mean_kl(reference: Side, model: Side, factors: Sequence[float] = (1.0,)) -> list[float]:
    """Return for every factor the mean over tokens of KL(reference ‖ softmax(factor · z)) in nats, from one pass.

    It is inf if a logit is not finite.
    """
    totals = [0.0] * len(factors)
    for expected, z in zip(reference.logits(), model.logits(), strict=True):
        unused = torch.zeros(len(z), dtype=torch.long, device=z.device)  # the true tokens do not enter the KL
        for place, factor in enumerate(factors):
            kl = divergence.compare(expected, factor * z, unused)["kl"]
            totals[place] += float(kl.sum(dtype=torch.float64))
    return [total / len(model.hidden) for total in totals]


@torch.no_grad()
def fit_factor(reference: Side, model: Side) -> float:
    """Return β > 0 that minimises the mean KL(reference ‖ softmax(βz)); 1.0 if a logit is not finite."""
    near = _newton(reference.sparse(), model.sparse(), 1.0)
    return _newton(reference, model, near)


def _newton(reference: Side, model: Side, start: float) -> float:
    wanted = _expected_logit(reference, model)
    if not math.isfinite(wanted):
        return 1.0
    beta, low, high = start, LOW, HIGH
    for _ in range(LONGEST):
        slope, curvature = _slope(model, beta, wanted)
        low, high = (low, beta) if slope > 0 else (beta, high)
        following = beta - slope / curvature if curvature > 0 else math.inf
        if not low < following < high:  # a step that leaves the bracket is replaced by the bracket's middle
            following = math.sqrt(low * high)
        moved = abs(math.log(following / beta))
        beta = following
        if moved < TOLERANCE:
            break
    return beta


def _expected_logit(reference: Side, model: Side) -> float:
    """Sum over tokens of E_p[z], where z counts from each token's largest logit."""
    total = 0.0
    for expected, z in zip(reference.logits(), model.logits(), strict=True):
        z = z - z.amax(-1, keepdim=True)
        total += float((expected.softmax(-1) * z).sum(dtype=torch.float64))
    return total


def _slope(model: Side, beta: float, wanted: float) -> tuple[float, float]:
    """(slope, curvature) of the summed KL at ``beta``."""
    found, curvature = 0.0, 0.0
    for z in model.logits():
        z = z - z.amax(-1, keepdim=True)
        q = (beta * z).softmax(-1)
        mean = (q * z).sum(-1, keepdim=True)
        found += float(mean.sum(dtype=torch.float64))
        curvature += float((q * (z - mean).square()).sum(dtype=torch.float64))
    return found - wanted, curvature
