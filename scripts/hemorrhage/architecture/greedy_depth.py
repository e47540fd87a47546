"""SLEB's greedy choice of blocks: drop the one whose loss on calibration text rises least, look again, and so on.

The stream before a candidate is the same whether it is dropped or not, so it is made once for all candidates: a step
runs about half of the blocks that one full pass for each candidate would. Sequences are taken a few at a time, so that
only their streams are held.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel

from hemorrhage.activations import chunked
from hemorrhage.architecture import targets
from hemorrhage.architecture.head import Head

SEQUENCES = 4  # held at a time unless the study says otherwise
POSITIONS = 1024  # whose logits are made at a time


@torch.no_grad()
def choose(
    model: PreTrainedModel, tokens: Tensor, number: int, chunk: int | None = None
) -> tuple[list[int], list[list[float | None]]]:
    """Return (blocks in the order in which they go, loss without each block by step).

    The loss is the mean cross-entropy (nats) of the tokens after the first of each sequence; of equal ones the first
    block goes. The entry of a block that is gone already is None. The model is left as it was.

    Args:
        model: any supported causal LM.
        tokens: [N, L] int64 calibration tokens.
        number: how many blocks go.
        chunk: sequences in one forward pass.

    Raises:
        ValueError: if a loss is not finite.
    """
    left = list(range(len(targets.blocks(model)[1])))
    gone: list[int] = []
    steps: list[list[float | None]] = []
    scored = tokens.shape[0] * (tokens.shape[1] - 1)
    for _ in range(number):
        sums = [_losses(model, part, left) for part in tokens.to(model.device).split(chunk or SEQUENCES)]
        means = {index: sum(column) / scored for index, column in zip(left, zip(*sums, strict=True), strict=True)}
        if not all(map(math.isfinite, means.values())):
            raise ValueError("where: a loss is not finite on the calibration tokens; the model is broken.")
        steps.append([means.get(index) for index in range(len(left) + len(gone))])
        gone.append(min(left, key=lambda index: (means[index], index)))
        left.remove(gone[-1])
    return gone, steps


def _losses(model: PreTrainedModel, tokens: Tensor, left: list[int]) -> list[float]:
    """The summed loss of one chunk without each of the blocks ``left``, in their order; the others are gone."""
    layers = targets.blocks(model)[1]
    sizes = chunked.tuple_sizes(model, layers, tokens)
    caught, entry = chunked.catch(model, (tokens,))
    chain = [caught[index] for index in left]
    stream, result = entry[0], []
    for place, block in enumerate(chain):
        rest = stream
        for following in chain[place + 1 :]:
            rest = following(rest.clone(), 0)  # a copy: a block may write into what it is given
        result.append(_loss(model, tokens, rest, sizes))
        stream = block(stream.clone(), 0)
    return result


def _loss(model: PreTrainedModel, tokens: Tensor, stream: Tensor, sizes: list[int | None]) -> float:
    """The summed cross-entropy of the tokens after the first, from the stream [n, L, d] behind the last block."""
    with _ending(targets.blocks(model)[1], stream, sizes):
        hidden = model.base_model(input_ids=tokens, use_cache=False).last_hidden_state[:, :-1]
    head, total = Head.of(model), 0.0
    parts = zip(hidden.flatten(0, 1).split(POSITIONS), tokens[:, 1:].flatten().split(POSITIONS), strict=True)
    for part, wanted in parts:
        total += float(F.cross_entropy(head(part), wanted, reduction="sum"))
    return total


@contextlib.contextmanager
def _ending(layers: nn.ModuleList, stream: Tensor, sizes: list[int | None]) -> Iterator[None]:
    """Let every block give ``stream``: what follows the blocks is then the model's own work on it."""
    for layer, size in zip(layers, sizes, strict=True):
        given = stream if size is None else (stream, *[None] * (size - 1))
        layer.forward = lambda *args, given=given, **kwargs: given
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward
