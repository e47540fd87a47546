"""DoLa: what the last block adds to an early one, among the tokens that the model itself finds likely.

The early block is chosen at every step: the one whose distribution, read through the final norm and the output
embedding, has the largest Jensen-Shannon divergence from the model's. The token with the largest log ratio is taken
among those with at least a share of the largest probability, after a penalty on tokens that were used before. It costs
one product with the output embedding per candidate block. Chuang et al. 2024, "DoLa: Decoding by Contrasting Layers
Improves Factuality in Large Language Models".
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hemorrhage import settings as check
from hemorrhage.settings import Axis

if TYPE_CHECKING:
    import torch

    from hemorrhage.decoding.generation import Rows
    from hemorrhage.decoding.reader import Seen

AXIS = Axis("relative_top", harmless=1, rises=False, unit="share of the largest probability")
STOCHASTIC = False
EXAMPLE: dict[str, object] = {}
KEEPS = frozenset({"blocks"})
HALVES = ("low", "high")


@dataclass(frozen=True)
class Settings:
    """Settings of DoLa.

    Attributes:
        relative_top: share of the largest probability that a token needs, above 0 and up to 1.
        repetition_penalty: 1 or more; positive scores of used tokens are divided by it, negative ones multiplied.
        half: "low" or "high", the half of the model whose even blocks are candidates.
    """

    relative_top: float = 0.1
    repetition_penalty: float = 1.2
    half: str = "low"

    def __post_init__(self) -> None:
        """Raise ValueError naming the setting, the value and what is allowed."""
        object.__setattr__(self, "relative_top", check.between("relative_top", self.relative_top, 1e-6, 1))
        penalty = check.between("repetition_penalty", self.repetition_penalty, 1, 100)
        object.__setattr__(self, "repetition_penalty", penalty)
        check.require(self.half, HALVES, "half")


def scores(logits: torch.Tensor, rows: Rows, settings: Settings) -> torch.Tensor:
    """Return the penalised log ratio of the plausible tokens, -inf for the others."""
    if rows.seen is None:
        raise ValueError("dola looks at the blocks of the model and runs inside the loop only.")
    final = logits.log_softmax(-1)
    early = farthest(final, rows.seen, settings.half)
    implausible = final < final.amax(-1, keepdim=True) + math.log(settings.relative_top)
    ratio = penalised(final - early, rows.seen, settings.repetition_penalty)
    return ratio.masked_fill(implausible, -float("inf"))


def candidates(blocks: int, half: str) -> list[int]:
    """Return after how many blocks the candidates are read: the even ones of a half, without the last block.

    The halves share none: an even middle is in the high one, [0, 16) and [16, 32) of 32 blocks as in the paper. Place
    0, the embeddings, is left out, as in transformers for a tied output embedding, which reads the token back from it.
    """
    middle = blocks // 2
    span = range(2, middle, 2) if half == "low" else range(middle + middle % 2, blocks, 2)
    return list(span) or [max(1, min(middle, blocks - 1))]


def farthest(final: torch.Tensor, seen: Seen, half: str) -> torch.Tensor:
    """Return the early log-probabilities [b, V], of every row the ones that diverge most from final."""
    import torch

    from hemorrhage.architecture.exits import exit_logits

    counts = candidates(len(seen.blocks), half)
    states = torch.cat([seen.blocks[count - 1] for count in counts])  # one product reads the output embedding once
    early = exit_logits(seen.model, states).log_softmax(-1).unflatten(0, (len(counts), -1))
    best = jensen_shannon(final, early).argmax(0)
    return early[best, torch.arange(len(best), device=best.device)]


def jensen_shannon(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Return the Jensen-Shannon divergence of log-probabilities [..., V] in nats, [...]; the shapes broadcast."""
    import torch

    sides = first.exp(), second.exp()
    middle = (sides[0] + sides[1]).div_(2)
    apart = [torch.special.xlogy(p, p).sum(-1) for p in (*sides, middle)]
    return 0.5 * (apart[0] + apart[1]) - apart[2]


def penalised(values: torch.Tensor, seen: Seen, penalty: float) -> torch.Tensor:
    """Return the scores with those of the tokens in prompt and text made worse."""
    import torch

    used = torch.zeros_like(values).scatter_reduce(1, seen.tokens, seen.mask.to(values.dtype), "amax").bool()
    worse = torch.where(values > 0, values / penalty, values * penalty)
    return torch.where(used, worse, values)
