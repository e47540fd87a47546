"""A model against the reference over a token set: windows in fixed batches, logits a few positions at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch

from hemorrhage.architecture.head import Head, hidden_states
from hemorrhage.measuring import divergence

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from hemorrhage.corpus.tokens import TokenSet


class Windows(Protocol):
    """What gives the inputs of an output embedding [b, L, d] for a slice of windows."""

    def __getitem__(self, windows: slice) -> torch.Tensor: ...


def compare(
    reference_head: Head,
    reference_hidden: Windows,
    model: PreTrainedModel,
    tokens: TokenSet,
    batch: int,
    vocabulary: int | None = None,
) -> dict[str, np.ndarray]:
    """Run ``model`` over every window and compare it with the reference at the scored positions.

    Args:
        reference_head: the reference's output embedding.
        reference_hidden: the inputs of that for windows [a:b].
        model: the variant.
        tokens: the windows.
        batch: windows in one forward pass.
        vocabulary: see ``divergence.compare_hidden``.

    Returns:
        [B, L] float32 by the names of ``divergence.compare``; entry [b, t] is about the prediction of token t, nan
        where that is not scored.

    Raises:
        ValueError: the vocabularies differ.
    """
    head = Head.of(model)
    found: dict[str, np.ndarray] = {}
    for start in range(0, len(tokens.tokens), batch):
        windows = slice(start, start + batch)
        ids = torch.as_tensor(tokens.tokens[windows], dtype=torch.long, device=model.device)
        scored = torch.as_tensor(tokens.scored[windows][:, 1:], device=model.device)
        hidden = hidden_states(model, ids)[:, :-1][scored]
        expected = reference_hidden[windows].to(model.device)[:, :-1][scored]
        if not len(hidden):
            continue
        values = divergence.compare_hidden(reference_head, expected, head, hidden, ids[:, 1:][scored], vocabulary)
        for name, value in values.items():
            whole = found.setdefault(name, np.full(tokens.tokens.shape, np.nan, dtype=np.float32))
            whole[windows][tokens.scored[windows]] = value.cpu().numpy()
    return found
