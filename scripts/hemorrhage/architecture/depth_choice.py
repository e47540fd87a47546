"""Which blocks to drop: by influence or place, as one stretch of least angle, or greedily by loss."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from hemorrhage.architecture import blocks, greedy_depth, targets

WHERE = (*blocks.WHERE, "angular", "sleb")


def choose(
    model: PreTrainedModel, where: str, number: int, tokens: Tensor, chunk: int | None = None
) -> tuple[list[int], dict[str, Any]]:
    """Return (the blocks to drop, sorted; what was measured to choose them, by name). The model is left as it was.

    Args:
        model: any supported causal LM.
        where: one of ``WHERE``.
        number: how many, 0 or more and fewer than there are.
        tokens: [N, L] int64 calibration tokens.
        chunk: sequences in one forward pass.

    Raises:
        ValueError: if what is measured is not finite.
    """
    if where == "sleb":
        chosen, losses = greedy_depth.choose(model, tokens, number, chunk)
        return sorted(chosen), {"order": chosen, "losses": losses}
    if where == "angular":
        distances = angular_distances(model, tokens, number, chunk)
        start = min(range(len(distances)), key=lambda place: (distances[place], place))
        return list(range(start, start + number)), {"distances": distances}
    order, influence = blocks.order(model, where, tokens, chunk)
    return sorted(order[:number]), {"influence": influence}


@torch.no_grad()
def angular_distances(model: PreTrainedModel, tokens: Tensor, number: int, chunk: int | None = None) -> list[float]:
    """Return for every start the angular distance between the streams before and after ``number`` blocks.

    The distance is arccos of the cosine, over π, of the last token of each sequence, averaged over sequences; the
    stream after the last block is taken before the final norm.

    Raises ValueError if a distance is not finite.
    """
    layers = targets.blocks(model)[1]
    streams: list[list[Tensor]] = [[] for _ in range(len(layers) + 1)]

    def watch(index: int):
        def hook(_module, args, kwargs, output) -> None:
            before = args[0] if args else kwargs["hidden_states"]
            streams[index].append(before[:, -1].float().clone())
            if index == len(layers) - 1:
                streams[-1].append((output[0] if isinstance(output, tuple) else output)[:, -1].float().clone())

        return hook

    handles = [layer.register_forward_hook(watch(i), with_kwargs=True) for i, layer in enumerate(layers)]
    try:
        for part in tokens.split(chunk or len(tokens)):
            model.base_model(part, use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    last = [torch.cat(parts).double() for parts in streams]
    distances = []
    for start in range(len(layers) - number + 1):
        cosine = torch.cosine_similarity(last[start], last[start + number], dim=-1).clamp(-1, 1)
        distances.append(float(cosine.arccos().mean() / math.pi))
    if not all(map(math.isfinite, distances)):
        raise ValueError("where: angular distances are not finite on the calibration tokens; the model is broken.")
    return distances
