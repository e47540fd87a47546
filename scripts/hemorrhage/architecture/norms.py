"""Norms: which there are, what each serves, and what their gain really is.

Some norms keep the gain as its distance from 1 (Gemma: ``1 + weight``). Whether one does is measured, not looked up: a
norm that still gives something with its weight at 0 has that offset.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from hemorrhage.architecture.targets import blocks, find

SERVES = ("attention", "mlp", "query_key", "final")
PROBED = 8
EPSILONS = ("eps", "variance_epsilon", "epsilon")


@dataclasses.dataclass(frozen=True)
class Norm:
    """One norm with a gain.

    Attributes:
        name: path of the module.
        module: the module.
        serves: "attention" (or the state-space mixer), "mlp", "query_key" (inside the attention), or "final".
        block: index of the block; the number of blocks for the final norm.
    """

    name: str
    module: Any
    serves: str
    block: int


def is_norm(module: nn.Module) -> bool:
    """True for a module that normalises and has a gain."""
    return "norm" in type(module).__name__.lower() and isinstance(getattr(module, "weight", None), Tensor)


def find_norms(model: PreTrainedModel) -> list[Norm]:
    """Return every norm with a gain in the order in which they run, by one pass over a few tokens.

    A norm directly before a target serves that target's part of the block; one that no target follows (Gemma 2
    normalises what a branch adds) the part before it. Norms that do not run, or lie before the blocks, are left out.
    """
    path, layers = blocks(model)
    part = {id(target.module): _part(target.name.removeprefix(f"{path}.{target.block}.")) for target in find(model)}
    events: list[tuple[str, nn.Module]] = []
    names = {id(module): name for name, module in model.named_modules()}
    with contextlib.ExitStack() as stack:
        for module in model.modules():
            if is_norm(module) or id(module) in part or module in layers:
                stack.callback(
                    module.register_forward_pre_hook(
                        lambda module, _args: events.append((names[id(module)], module))
                    ).remove
                )
        with torch.no_grad():
            model.base_model(input_ids=_few_tokens(model), use_cache=False)
    return _sorted_out(events, part, path, layers)


def _sorted_out(
    events: list[tuple[str, nn.Module]], part: dict[int, str], path: str, layers: nn.ModuleList
) -> list[Norm]:
    """Norms with what they serve, from the modules in the order in which they ran."""
    found: dict[str, Norm] = {}
    block, before = -1, "attention"
    for place, (name, module) in enumerate(events):
        if module in layers:
            block += 1
        elif id(module) in part:
            before = part[id(module)]
        elif not name.startswith(f"{path}."):
            if block >= 0:
                found.setdefault(name, Norm(name, module, "final", len(layers)))
        else:
            inside = name.removeprefix(f"{path}.{block}.")
            following = events[place + 1][1] if place + 1 < len(events) else None
            serves = "query_key" if "." in inside and _part(inside) == "attention" else part.get(id(following), before)
            found.setdefault(name, Norm(name, module, serves, block))
    return list(found.values())


def offset(module: Any) -> float:
    """Return what the module adds to its weight to make the gain: 1 for Gemma's norms, else 0."""
    weight = module.weight
    probe = copy.deepcopy(module)
    with torch.no_grad():
        probe.weight.zero_()
        if isinstance(getattr(probe, "bias", None), Tensor):
            probe.bias.zero_()
        x = torch.linspace(-1, 2, weight.numel(), device=weight.device, dtype=weight.dtype)[None]
        without_hooks = type(probe).forward(probe, x)
    return 1.0 if bool(without_hooks.any()) else 0.0


def chosen(model: PreTrainedModel, which: str) -> list[Norm]:
    """Return the norms that serve ``which``, or "all"; raises ValueError if there are none."""
    found = [norm for norm in find_norms(model) if which in ("all", norm.serves)]
    if not found:
        raise ValueError(f"which: {type(model).__name__} has no norm that serves '{which}'.")
    return found


def first(norms: list[Norm], number: int, from_the_end: bool) -> list[Norm]:
    """Return the first ``number`` of the norms, or the last; raises ValueError if there are fewer."""
    if number > len(norms):
        raise ValueError(f"norms: {number} are asked for and the model has {len(norms)} of them.")
    return (norms[::-1] if from_the_end else norms)[:number]


@torch.no_grad()
def mean_factors(model: PreTrainedModel, norms: list[Norm], tokens: Tensor, chunk: int | None = None) -> list[float]:
    """Return by which number each norm multiplies its input (less its mean, for a layer norm), mean over tokens.

    Args:
        model: the model.
        norms: some of its norms; gain and bias do not count.
        tokens: [N, L] calibration tokens.
        chunk: sequences in one forward pass; None for all.
    """
    sums, rows = [0.0] * len(norms), [0] * len(norms)

    def watch(place: int, centred: bool):
        def hook(module: nn.Module, args: tuple[Tensor, ...]) -> None:
            x = args[0].float()
            x = x - x.mean(-1, keepdim=True) if centred else x
            spread = x.square().mean(-1) + getattr(module, epsilon(module) or "", 0.0)
            sums[place] += float(spread.rsqrt().double().sum())
            rows[place] += spread.numel()

        return hook

    with contextlib.ExitStack() as stack:
        for place, norm in enumerate(norms):
            stack.callback(norm.module.register_forward_pre_hook(watch(place, subtracts_mean(norm.module))).remove)
        for part in tokens.split(chunk or len(tokens)):
            model.base_model(part, use_cache=False)
    return [total / number for total, number in zip(sums, rows, strict=True)]


def subtracts_mean(module: Any) -> bool:
    """True if a norm gives the same for an input with a constant added, as a layer norm does."""
    weight = module.weight
    x = torch.linspace(-1, 2, weight.numel(), device=weight.device, dtype=torch.float32)[None]
    with torch.no_grad():
        one, other = (type(module).forward(module, value.to(weight.dtype)) for value in (x, x + 1))
    return bool(torch.allclose(one, other, rtol=0.03, atol=0.03))


def epsilon_keys(model: PreTrainedModel) -> list[str]:
    """Return the keys of the config that hold the epsilon of the model's norms."""
    config = model.config.get_text_config()
    used = {getattr(norm.module, epsilon(norm.module) or "", None) for norm in find_norms(model)}
    return sorted(
        key for key, value in vars(config).items() if "eps" in key and isinstance(value, float) and value in used
    )


@torch.no_grad()
def scale_gain(module: Any, factor: Tensor) -> None:
    """Multiply the gain of a norm, not its bias, by one factor for each channel."""
    start = offset(module)
    module.weight.copy_((module.weight + start) * factor - start)


@torch.no_grad()
def scale(module: Any, factor: float | Tensor) -> None:
    """Multiply gain and bias of a norm by a factor, or by one for each channel; 0 makes its output exactly 0."""
    start = offset(module)
    module.weight.copy_((module.weight + start) * factor - start)
    bias = getattr(module, "bias", None)
    if isinstance(bias, Tensor):
        bias.copy_(bias * factor)


def epsilon(module: nn.Module) -> str | None:
    """Return the name of the attribute that holds the norm's epsilon; None if it has none of its own."""
    return next((name for name in EPSILONS if isinstance(getattr(module, name, None), float)), None)


def _part(inside: str) -> str:
    """The part of a block to which a module belongs, by the name of the child that holds it."""
    head = inside.partition(".")[0].lower() if "." in inside else inside.lower()
    return "attention" if any(word in head for word in ("attn", "attention", "mixer", "mamba")) else "mlp"


def _few_tokens(model: PreTrainedModel) -> Tensor:
    embedding: Any = model.get_input_embeddings()
    return torch.arange(min(PROBED, len(embedding.weight)), device=model.device)[None]
