"""Adding blocks: where copies go, and what may be done to them so that they do less harm.

An expansion is a *layer map* with repetitions: entry i is the block that new block i copies. The first run of a block
is the original, later ones are copies. Repairs change weights only, so that plain transformers loads the model: the
residual update is scaled through the weights that write to the stream (``writers.py``), the attention's logits through
query and key.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from hemorrhage.architecture import blocks, norms, writers
from hemorrhage.architecture.head import Head, hidden_states
from hemorrhage.architecture.repairs import Repair
from hemorrhage.architecture.targets import Target, find
from hemorrhage.architecture.targets import blocks as block_list
from hemorrhage.measuring import divergence

FIT_TOKENS = 2048  # of the calibration set, for the fitted scale: about one pass over it for each try
GOLDEN = (math.sqrt(5) - 1) / 2
TRIES = 12  # passes, three of them for both ends and the middle of what is left; the scale is known to 0.02


def spread(count: int, depth: int) -> list[int]:
    """Return ``count`` blocks spread evenly over ``depth``; beyond one each, all get another."""
    return sorted(index for start in range(0, count, depth) for index in _evenly(min(depth, count - start), depth))


def with_copies(depth: int, repeated: Sequence[int]) -> list[int]:
    """Return the layer map that runs each of ``repeated`` once more, in place."""
    return sorted([*range(depth), *repeated])


def copies(layer_map: Sequence[int | None]) -> list[int]:
    """Return the places of blocks that ran before in the map, or that copy none: what was added."""
    seen: set[int] = set()
    added = []
    for place, source in enumerate(layer_map):
        if source is None or source in seen:
            added.append(place)
        else:
            seen.add(source)
    return added


def expand(
    model: PreTrainedModel, layer_map: list[int], repair: Repair, tokens: Callable[[], Tensor]
) -> dict[str, Any]:
    """Rearrange the blocks, repair the repeated ones; returns what was achieved, the layer map included.

    Args:
        model: changed in place.
        layer_map: which block each new block copies.
        repair: what is done to repeated blocks.
        tokens: gives the calibration tokens [N, L] if the scale is fitted.

    Raises:
        ValueError: the architecture cannot be rearranged, or its query and key cannot be found.
    """
    depth = len(block_list(model)[1])
    added = copies(layer_map)
    if added:
        blocks.rearrange(model, layer_map)
    touched = (
        added
        if repair.scaled == "copies"
        else [place for place, source in enumerate(layer_map) if layer_map.count(source) > 1]
    )
    attenuate(model, touched, repair.attenuation)
    scale = _scale(model, layer_map, touched, repair, tokens)
    return {"added": len(added), "share": len(added) / depth, "residual_scale": scale, "layer_map": layer_map}


def attenuate(model: PreTrainedModel, places: Sequence[int], factor: float) -> None:
    """Multiply query and key of some blocks by ``factor``: the attention's logits by its square.

    Where queries and keys are normalised, the gain of that norm is multiplied. Raises ValueError if query and key are
    not weights of their own.
    """
    if factor == 1 or not places:
        return
    inside = [norm for norm in norms.find_norms(model) if norm.serves == "query_key"]
    normed = {norm.block for norm in inside}
    for norm in inside:
        if norm.block in places:
            norms.scale(norm.module, factor)
    for place in sorted(set(places) - normed):
        chosen = [target for target in find(model) if target.block == place]
        parts = [part for target in chosen for part in _query_and_key(target)]
        if not parts:
            raise ValueError(
                f"attenuation: {type(model).__name__} has no query and key of their own in block {place} "
                "that could be scaled."
            )
        with torch.no_grad():
            for part in parts:
                part.mul_(factor)


def loss(model: PreTrainedModel, tokens: Tensor) -> float:
    """Return the mean negative log-likelihood in nats of tokens [N, L], a sequence at a time."""
    head, total = Head.of(model), 0.0
    for row in tokens.split(1):
        total += _summed_loss(head, hidden_states(model, row)[0, :-1], row[0, 1:])
    return total / (tokens.shape[0] * (tokens.shape[1] - 1))


def _evenly(count: int, depth: int) -> list[int]:
    return [int((place + 0.5) * depth / count) for place in range(count)]


def _scale(
    model: PreTrainedModel, layer_map: list[int], touched: list[int], repair: Repair, tokens: Callable[[], Tensor]
) -> float | list[float]:
    """Scale the updates of the touched blocks; returns the factor, or one for each if they differ."""
    if repair.residual_scale == "none" or not touched:
        return 1.0
    if repair.residual_scale == "fitted":
        return _fit(model, touched, _first(tokens(), FIT_TOKENS))
    if repair.residual_scale != "sqrt":
        writers.scale(model, touched, float(repair.residual_scale))
        return float(repair.residual_scale)
    factors = [1 / math.sqrt(layer_map.count(layer_map[place])) for place in touched]
    for factor in sorted(set(factors)):
        writers.scale(model, [place for place, own in zip(touched, factors, strict=True) if own == factor], factor)
    return factors[0] if len(set(factors)) == 1 else factors


def _fit(model: PreTrainedModel, places: list[int], tokens: Tensor) -> float:
    """Find the factor in 0 to 1 with the lowest loss by golden section, and leave it in the weights."""
    scaled = [writer for writer in writers.find(model) if writer.block in places]
    kept = [
        {name: parameter.detach().clone() for name, parameter in writer.module.named_parameters(recurse=False)}
        for writer in scaled
    ]

    def put(factor: float) -> None:
        for writer, weights in zip(scaled, kept, strict=True):
            for name, parameter in writer.module.named_parameters(recurse=False):
                parameter.data.copy_(weights[name])
            writer.scale(factor)

    def tried(factor: float) -> float:
        put(factor)
        return loss(model, tokens)

    low, high = 0.0, 1.0
    left, right = high - GOLDEN, low + GOLDEN
    at_left, at_right = tried(left), tried(right)
    for _ in range(TRIES - 5):
        if at_left <= at_right:
            high, right, at_right = right, left, at_left
            left = high - GOLDEN * (high - low)
            at_left = tried(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + GOLDEN * (high - low)
            at_right = tried(right)
    best = min((0.0, round((low + high) / 2, 4), 1.0), key=tried)  # the section never comes to the ends
    put(best)
    return best


def _summed_loss(head: Head, hidden: Tensor, following: Tensor) -> float:
    """The sum of the negative log-likelihoods of ``following`` [n] given ``hidden`` [n, d]."""
    rows = max(1, divergence.LOGITS_AT_ONCE // head.weight.shape[0])
    return sum(
        float(nn.functional.cross_entropy(head(part), target, reduction="sum").double())
        for part, target in zip(hidden.split(rows), following.split(rows), strict=True)
    )


def _first(tokens: Tensor, total: int) -> Tensor:
    return tokens[: max(1, total // tokens.shape[1])]


def _query_and_key(target: Target) -> list[Tensor]:
    """The rows of a target, and of its bias, that make queries and keys; empty if it makes neither."""
    name = target.module_name.rpartition(".")[2]
    rows = target.out_features
    if name == "c_attn":
        rows = 2 * target.out_features // 3  # GPT-2 makes query, key and value in one product, in this order
    elif name not in ("q_proj", "k_proj"):
        return []
    bias = getattr(target.module, "bias", None)
    return [target.weight[:rows], *([bias.detach()[:rows]] if isinstance(bias, Tensor) else [])]
