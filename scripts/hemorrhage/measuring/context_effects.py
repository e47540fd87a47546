"""Loss and divergence by how much context a token has."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np
import torch
from transformers import PreTrainedModel

from hemorrhage.analysis.statistics import exponential, mean_interval
from hemorrhage.architecture.head import hidden_states
from hemorrhage.corpus.tokens import TokenSet
from hemorrhage.measuring import comparison
from hemorrhage.probing import Context
from hemorrhage.records import Measurement, Metric

UNBOUNDED = float("inf")


def measure(model: PreTrainedModel, context: Context, edges: Sequence[int], lengths: Sequence[int]) -> Measurement:
    """Return the metrics by position and by length, with their sums over windows.

    Raises ValueError if the reference was measured on other windows, or the vocabularies differ.
    """
    if context.reference.tokens_hash != context.tokens.hash:
        raise ValueError("The reference was measured on other windows than the ones given; measure it again.")
    tokens, size = context.tokens, context.tokens.tokens.shape[1]
    values = comparison.compare(
        context.reference_head, context.reference.hidden, model, tokens, context.batch, context.vocabulary
    )
    found = Measurement([])
    starts = [edge for edge in edges if edge < size]
    for start, end in itertools.pairwise([*starts, size] if starts else []):
        _add(
            found,
            f"position.{start:04d}",
            {name: array[:, start:end] for name, array in values.items()},
            tokens.scored[:, start:end],
            context.index,
        )
    shorter = [length for length in lengths if length < size]
    if shorter:
        reference = context.loaded_reference()
        for length in shorter:
            pieces = cut(tokens, length)
            live = _Live(reference, pieces)
            values = comparison.compare(context.reference_head, live, model, pieces, context.batch, context.vocabulary)
            windows = len(tokens.tokens)
            by_window = {name: array.reshape(windows, -1) for name, array in values.items()}
            _add(found, f"length.{length:04d}", by_window, pieces.scored.reshape(windows, -1), context.index)
    return found


def cut(tokens: TokenSet, length: int) -> TokenSet:
    """Return the windows cut into pieces of ``length`` tokens; what does not fill a piece is left out."""
    count = tokens.tokens.shape[1] // length
    pieces = tokens.tokens[:, : count * length].reshape(-1, length)
    scored = tokens.scored[:, : count * length].reshape(-1, length).copy()
    scored[:, 0] = False
    return dataclasses.replace(
        tokens,
        tokens=pieces,
        scored=scored,
        articles=[title for title in tokens.articles for _ in range(count)],
        bytes=np.repeat(tokens.bytes, count),
    )


class _Live:
    """Inputs of a model's output embedding for slices of windows, made when they are asked for."""

    def __init__(self, model: PreTrainedModel, tokens: TokenSet) -> None:
        self.model, self.tokens = model, tokens

    def __getitem__(self, windows: slice) -> torch.Tensor:
        ids = torch.as_tensor(self.tokens.tokens[windows], dtype=torch.long, device=self.model.device)
        return hidden_states(self.model, ids)


def _add(found: Measurement, where: str, values: dict[str, np.ndarray], scored: np.ndarray, index: np.ndarray) -> None:
    """Append perplexity, change of the loss and KL of one part [B, ..] of the tokens, and their sums by window."""
    counts = scored.sum(1).astype(np.float64)
    if not counts.any():
        return
    sums = {name: np.where(scored, values[name], 0.0).sum(1, dtype=np.float64) for name in ("nll", "kl")}
    change = values["nll"].astype(np.float64) - values["reference_nll"]
    sums["delta_nll"] = np.where(scored, change, 0.0).sum(1)
    kl = mean_interval(sums["kl"], counts, index, (0.0, UNBOUNDED))
    loss = mean_interval(sums["nll"], counts, index, (0.0, UNBOUNDED))
    found.arrays.update({f"{name}_{where}": array for name, array in {**sums, "count": counts}.items()})
    found.metrics.extend(
        [
            Metric.of(f"perplexity_{where}", exponential(loss), "", higher_is_better=False),
            Metric.of(f"delta_nll_{where}", mean_interval(sums["delta_nll"], counts, index), "nats"),
            Metric.of(f"kl_{where}", kl, "nats"),
        ]
    )
