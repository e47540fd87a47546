"""Surgery on a model's list of blocks: which block matters, and a new list made of the old blocks.

A block is copied deeply, gets its own place (``layer_idx``, else the cache of two blocks is one), and the config is
brought along: transformers runs only the first ``num_hidden_layers`` blocks and says nothing about the rest.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from hemorrhage.architecture import attachments, targets

PLACE = "layer_idx"
WHERE = ("influence", "first", "middle", "last")


@torch.no_grad()
def influence(model: PreTrainedModel, tokens: Tensor, chunk: int | None = None) -> list[float]:
    """Return the block influence of ShortGPT: 1 − mean over tokens of cos(input, output) of every block.

    Args:
        model: any supported causal LM.
        tokens: [N, L] calibration tokens.
        chunk: sequences in one forward pass; None for all.
    """
    layers = targets.blocks(model)[1]
    cosines = [0.0] * len(layers)

    def watch(index: int):
        def hook(_module, args, kwargs, output) -> None:
            before = args[0] if args else kwargs["hidden_states"]
            after = output[0] if isinstance(output, tuple) else output
            cosines[index] += float(torch.cosine_similarity(before.float(), after.float(), dim=-1).double().sum())

        return hook

    handles = [layer.register_forward_hook(watch(i), with_kwargs=True) for i, layer in enumerate(layers)]
    try:
        for part in tokens.split(chunk or len(tokens)):
            model.base_model(part, use_cache=False)  # without the head, whose logits would be the largest tensor
    finally:
        for handle in handles:
            handle.remove()
    return [1 - total / tokens.numel() for total in cosines]


def order(
    model: PreTrainedModel, where: str, tokens: Tensor, chunk: int | None = None
) -> tuple[list[int], list[float]]:
    """Return (block indices in the order in which they are chosen, their influence if it was measured).

    ``influence`` begins with the block that changes its input least (equal ones by index), ``middle`` with the block
    in the middle and goes outwards. Raises ValueError if an influence is not finite.
    """
    count = len(targets.blocks(model)[1])
    if where == "influence":
        values = influence(model, tokens, chunk)
        if not all(map(math.isfinite, values)):
            raise ValueError("where: block influence is not finite on the calibration tokens; the model is broken.")
        return sorted(range(count), key=lambda index: (values[index], index)), values
    places = {
        "first": lambda index: index,
        "last": lambda index: -index,
        "middle": lambda index: (abs(index - (count - 1) / 2), index),
    }
    return sorted(range(count), key=places[where]), []


def rearrange(model: PreTrainedModel, layer_map: Sequence[int]) -> None:
    """Replace the block list: new block i is block ``layer_map[i]`` of the old list, copied where one comes twice.

    Raises ValueError if the architecture fixes by depth what a block is, so that plain transformers would load
    another model from the new config.
    """
    name, layers = targets.blocks(model)
    used: set[int] = set()
    fresh = []
    for source in layer_map:
        fresh.append(copy.deepcopy(layers[source]) if source in used else layers[source])
        used.add(source)
    for place, layer in enumerate(fresh):
        for module in layer.modules():
            if hasattr(module, PLACE):
                setattr(module, PLACE, place)
    _update_config(model.config.get_text_config(), len(layers), layer_map)
    parent, _, last = name.rpartition(".")
    setattr(model.get_submodule(parent), last, nn.ModuleList(fresh))
    _move_attachments(model, name, layer_map)
    check(model)


def check(model: PreTrainedModel) -> None:
    """Raise ValueError unless every block runs and the config describes this very model."""
    silent = set(range(len(targets.blocks(model)[1]))) - ran(model)
    if silent:
        raise ValueError(f"blocks {sorted(silent)} of the changed model never run: its config was not brought along.")
    config = model.config
    if getattr(config, "quantization_config", None) is not None:
        return  # packed layers are not what the config alone would build
    with torch.device("meta"):
        rebuilt = type(model)(copy.deepcopy(config))
    expected, found = _facts(rebuilt), _facts(model)
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            raise ValueError(
                f"{type(model).__name__} fixes '{name}' by the depth of a block ({found.get(name)} here, "
                f"{expected.get(name)} in a model loaded from the new config): its blocks cannot be rearranged so."
            )


@torch.no_grad()
def ran(model: PreTrainedModel) -> set[int]:
    """Return the indices of the blocks that a forward pass runs."""
    seen: set[int] = set()
    layers = targets.blocks(model)[1]
    handles = [
        layer.register_forward_pre_hook(lambda _module, _args, index=index: seen.add(index))
        for index, layer in enumerate(layers)
    ]
    try:
        model.base_model(torch.zeros(1, 2, dtype=torch.long, device=model.device), use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    return seen


def _update_config(config: Any, depth: int, layer_map: Sequence[int]) -> None:
    """Bring the number of blocks and every list with one entry a block to the new blocks."""
    for key, value in list(vars(config).items()):
        per_block = isinstance(value, list) and len(value) == depth and ("layer" in key or "block" in key)
        if per_block:
            setattr(config, key, [value[source] for source in layer_map])
    config.num_hidden_layers = len(layer_map)


def _move_attachments(model: PreTrainedModel, name: str, layer_map: Sequence[int]) -> None:
    """Give attachments the names of the blocks that their hooks are on now; those of dropped blocks go."""
    moved = []
    for spec in attachments.attached(model):
        target = str(spec.get("target", ""))
        if not target.startswith(f"{name}."):
            moved.append(spec)
            continue
        index, _, rest = target.removeprefix(f"{name}.").partition(".")
        moved += [
            {**spec, "target": f"{name}.{place}.{rest}"}
            for place, source in enumerate(layer_map)
            if source == int(index)
        ]
    model.hemorrhage_attachments = moved  # type: ignore[assignment]


def _facts(model: PreTrainedModel) -> dict[str, object]:
    """What a block is, by name: shapes of its parameters, and plain attributes such as its place or attention type."""
    name, _ = targets.blocks(model)
    facts: dict[str, object] = {}
    for path, module in model.get_submodule(name).named_modules():
        for key, value in vars(module).items():
            if not key.startswith("_") and key != "training" and isinstance(value, bool | int | float | str):
                facts[f"{name}.{path}.{key}"] = value
    for path, parameter in model.named_parameters():
        facts[path] = tuple(parameter.shape)
    return facts
