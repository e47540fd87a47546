"""Speculative sampling: a damaged variant proposes, the variant itself accepts or corrects; a control.

A token drawn from the draft's distribution q is accepted with probability min(1, p/q), else one is drawn from the
positive part of p − q: the text follows the variant's own distribution p whatever the draft is, and a draft equal to
the variant gives the text of temperature 1. What becomes of a place depends only on p, q and the noise there, not on
how many places are proposed at once; so both models read in step, which works for every kind of cache, and the text is
the one that any length of look-ahead gives. It costs one forward pass of each model per token, more than it saves.
Leviathan et al. 2023, "Fast Inference from Transformers via Speculative Decoding".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from hemorrhage.decoding.generation import Rows

AXIS = None
STOCHASTIC = True
EXAMPLE: dict[str, object] = {"draft": "other"}
OTHER = "draft"
PROPOSE, ACCEPT, CORRECT = range(3)  # streams of the noise


@dataclass(frozen=True)
class Settings:
    """Settings of speculative sampling.

    Attributes:
        draft: slug of the variant that proposes.
    """

    draft: str


def generate(model: PreTrainedModel, rows: Rows, settings: Settings, limit: int) -> list[list[int]]:
    """Return the new tokens of every row. Raises ValueError if the vocabularies differ."""
    from hemorrhage.decoding.generation import Reader, grow, named

    target = Reader(model, rows.sequences)
    draft = Reader(named(rows.others, OTHER, settings.draft), rows.sequences)
    if target.logits.shape != draft.logits.shape:
        raise ValueError(f"draft: '{settings.draft}' must be a variant with the same vocabulary.")
    return grow(model, rows, [target, draft], lambda: choose(target.logits, draft.logits, rows), limit)


def choose(logits: torch.Tensor, draft: torch.Tensor, rows: Rows) -> torch.Tensor:
    """Return the next token of every row, [b], from the logits [b, V] of variant and draft."""
    import torch

    proposed = rows.draw(draft, PROPOSE)
    p, q = logits.softmax(-1), draft.softmax(-1)
    uniform = torch.exp(-torch.exp(-rows.gumbel(1, ACCEPT)))[:, 0]
    ratio = (p.gather(-1, proposed[:, None]) / q.gather(-1, proposed[:, None]))[:, 0]
    rest = (p - q).clamp(min=0).log()
    corrected = rows.draw(rest, CORRECT)
    return torch.where(uniform < ratio, proposed, corrected)
