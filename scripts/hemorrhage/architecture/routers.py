"""Routers of mixtures of experts: where they are, how they spread tokens, fewer experts, other experts.

A router is what stands beside a fused expert module (``experts.py``) and holds a weight with one row an expert. How
many experts a token goes to is read from and written to the attribute ``top_k`` and the config, so that the model that
plain transformers loads is the same.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from hemorrhage.architecture import experts
from hemorrhage.architecture.targets import blocks

COUNTS = ("num_local_experts", "num_experts", "n_routed_experts")
ACTIVE = ("num_experts_per_tok", "moe_top_k", "num_experts_per_token", "moe_topk")


@dataclasses.dataclass(frozen=True)
class Mixture:
    """One mixture of experts.

    Attributes:
        block: index of its block.
        parent: the module that holds router and experts.
        router: the router.
        experts: the fused experts.
        name: path of the router.
    """

    block: int
    parent: nn.Module
    router: Any
    experts: Any
    name: str


def find(model: PreTrainedModel) -> list[Mixture]:
    """Return every mixture of experts, by block; empty for a dense model."""
    path, layers = blocks(model)
    found = []
    for block, layer in enumerate(layers):
        for place, parent in layer.named_modules():
            fused = [child for child in parent.children() if experts.is_fused(child)]
            if not fused:
                continue
            name, router = _router(parent, experts.count(fused[0]))
            if router is not None:
                found.append(Mixture(block, parent, router, fused[0], f"{path}.{block}.{place}.{name}"))
    return found


def unsuited(model: PreTrainedModel) -> str | None:
    """Return one sentence if the model has no router that can be changed, else None."""
    mixtures = find(model)
    if not mixtures:
        return f"{type(model).__name__}: it has no mixture of experts, so it has no routing that could be changed."
    return None


def required(model: PreTrainedModel) -> list[Mixture]:
    """Return every mixture of experts; raises ValueError if there is none."""
    reason = unsuited(model)
    if reason:
        raise ValueError(reason)
    return find(model)


def active(model: PreTrainedModel) -> int:
    """Return how many experts a token goes to. Raises ValueError if the config does not say it."""
    config = model.config.get_text_config()
    name = next((name for name in ACTIVE if hasattr(config, name)), None)
    if name is None:
        raise ValueError(f"{type(model).__name__}: its config does not say how many experts a token goes to.")
    return int(getattr(config, name))


def set_active(model: PreTrainedModel, number: int) -> None:
    """Let every token go to ``number`` experts, in the modules and in the config."""
    before = active(model)
    for mixture in required(model):
        for module in (mixture.parent, mixture.router):
            if getattr(module, "top_k", None) == before:
                module.top_k = number
    config = model.config.get_text_config()
    for name in ACTIVE:
        if hasattr(config, name):
            setattr(config, name, number)


@torch.no_grad()
def keep(model: PreTrainedModel, kept: Sequence[Sequence[int]]) -> None:
    """Keep some experts of every mixture, in their order; every mixture keeps as many.

    Args:
        model: changed in place.
        kept: for every mixture the indices of the experts that stay.
    """
    mixtures = required(model)
    before, number = experts.count(mixtures[0].experts), len(kept[0])
    for mixture, indices in zip(mixtures, kept, strict=True):
        index = torch.tensor(sorted(indices), device=model.device)
        for module in (mixture.router, mixture.experts):
            _select(module, index, before)
        for module in (mixture.parent, mixture.router, mixture.experts):
            for name in ("num_experts", "n_routed_experts", "num_local_experts"):
                if getattr(module, name, None) == before:
                    setattr(module, name, number)
            if getattr(module, "out_features", None) == before:
                module.out_features = number
    config = model.config.get_text_config()
    for name in COUNTS:
        if getattr(config, name, None) == before:
            setattr(config, name, number)


@torch.no_grad()
def loads(model: PreTrainedModel, tokens: Tensor, chunk: int | None = None) -> tuple[list[Tensor], list[float]]:
    """Return (how often each expert is chosen [E] float64, mean entropy in nats of the router) for every mixture.

    Args:
        model: a mixture of experts.
        tokens: [N, L] calibration tokens.
        chunk: sequences in one forward pass; None for all.
    """
    mixtures = required(model)
    counts = [torch.zeros(experts.count(mixture.experts), dtype=torch.float64) for mixture in mixtures]
    entropies = [0.0] * len(mixtures)

    def choices(row: int):
        def hook(_module: nn.Module, args: tuple, kwargs: dict) -> None:
            _, chosen = experts.routed(args, kwargs)
            counts[row] += torch.bincount(chosen.flatten().cpu(), minlength=len(counts[row]))

        return hook

    def entropy(row: int):
        def hook(module: Any, args: tuple, _out: object) -> None:
            x = args[0].reshape(-1, args[0].shape[-1]).float()
            bias = getattr(module, "bias", None)
            logits = nn.functional.linear(x, module.weight.float(), None if bias is None else bias.float())
            entropies[row] += float(torch.special.entr(logits.softmax(-1)).sum(-1).double().sum())

        return hook

    with contextlib.ExitStack() as stack:
        for row, mixture in enumerate(mixtures):
            stack.callback(mixture.experts.register_forward_pre_hook(choices(row), with_kwargs=True).remove)
            stack.callback(mixture.router.register_forward_hook(entropy(row)).remove)
        for part in tokens.split(chunk or len(tokens)):
            model.base_model(part, use_cache=False)
    return counts, [total / tokens.numel() for total in entropies]


def balance(model: PreTrainedModel, tokens: Tensor, chunk: int | None = None) -> dict[str, Any]:
    """Return how the routers spread calibration tokens, for the record.

    ``load_largest`` is the share of the busiest expert times the number of experts, by mixture: 1 is a perfect balance.
    ``load_entropy`` is the entropy of the loads and ``router_entropy`` the mean one of the router's distribution, both
    over their largest value, ln of the number of experts.
    """
    counts, entropies = loads(model, tokens, chunk)
    shares = [count / count.sum() for count in counts]
    most = [math.log(len(share)) or 1.0 for share in shares]
    return {
        "load_largest": [float(share.max() * len(share)) for share in shares],
        "load_entropy": [float(torch.special.entr(share).sum()) / top for share, top in zip(shares, most, strict=True)],
        "router_entropy": [value / top for value, top in zip(entropies, most, strict=True)],
        "unused_experts": [int((count == 0).sum()) for count in counts],
    }


def _router(parent: nn.Module, number: int) -> tuple[str, nn.Module | None]:
    """The child of ``parent`` that holds one row of weights an expert."""
    for name, child in parent.named_children():
        weight = getattr(child, "weight", None)
        if isinstance(weight, Tensor) and weight.dim() == 2 and weight.shape[0] == number:
            return name, child
    return "", None


def _select(module: nn.Module, index: Tensor, before: int) -> None:
    """Keep the rows ``index`` of every parameter that has one row an expert."""
    for name, parameter in list(module.named_parameters(recurse=False)):
        if len(parameter) == before:
            setattr(module, name, nn.Parameter(parameter.detach()[index].clone(), requires_grad=False))
    for name, buffer in list(module.named_buffers(recurse=False)):
        if buffer.dim() and len(buffer) == before:
            module.register_buffer(name, buffer[index].clone())
