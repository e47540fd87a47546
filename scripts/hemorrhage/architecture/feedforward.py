"""The dense feed-forward part of a block: which targets make its channels, which one reads them, and more of them."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from hemorrhage.architecture import randomness, writers
from hemorrhage.architecture.targets import Target, blocks
from hemorrhage.architecture.targets import find as find_targets

WIDTHS = ("intermediate_size", "ffn_dim", "n_inner", "ffn_hidden_size", "d_ff")


@dataclasses.dataclass(frozen=True)
class FeedForward:
    """The feed-forward part of one block.

    Attributes:
        ups: the targets whose rows make the channels (``up_proj`` and ``gate_proj``, or one).
        down: the target whose columns read them.
    """

    ups: tuple[Target, ...]
    down: Target

    @property
    def channels(self) -> int:
        """Its number of channels."""
        return self.down.in_features


def unsuited(model: PreTrainedModel) -> str | None:
    """Return one sentence if a block of the model has no dense feed-forward part, else None."""
    try:
        find(model)
    except ValueError as error:
        return str(error)
    return None


def find(model: PreTrainedModel) -> list[FeedForward]:
    """Return the feed-forward part of every block.

    It is a target that writes to the residual stream together with those of the same module that make exactly as many
    outputs as it reads. Raises ValueError if a block has none, or has fused experts.
    """
    layers = blocks(model)[1]
    name = type(model).__name__
    every = find_targets(model)
    if any(target.kind == "expert" for target in every):
        raise ValueError(f"{name}: its feed-forward parts are fused experts, which have no dense channels.")
    writing = {id(writer.module) for writer in writers.find(model) if not writer.is_norm}
    if not writing:  # norms write, so the last target of each part does before them
        writing = {id(target.module) for target in every}
    found: dict[int, FeedForward] = {}
    for block in range(len(layers)):
        inside = [target for target in every if target.block == block]
        for down in inside:
            ups = tuple(
                target
                for target in inside
                if target is not down
                and _parent(target) == _parent(down)
                and target.out_features == down.in_features
                and target.in_features == down.out_features
            )
            is_mlp = not any(word in _parent(down).lower() for word in ("attn", "attention", "mixer"))
            if ups and is_mlp and id(down.module) in writing and down.in_features > down.out_features:
                found[block] = FeedForward(ups, down)
    missing = [block for block in range(len(layers)) if block not in found]
    if missing:
        raise ValueError(f"{name}: no dense feed-forward part was found in blocks {missing}.")
    if len({part.channels for part in found.values()}) > 1:
        raise ValueError(f"{name}: its blocks differ in their number of feed-forward channels.")
    return [found[block] for block in sorted(found)]


@torch.no_grad()
def widen(part: FeedForward, added: int, noise: float, generator: torch.Generator, words: str) -> None:
    """Duplicate ``added`` channels, drawn evenly: each channel once more before any comes twice."""
    count = part.channels
    rounds = -(-added // count)
    drawn = torch.cat([torch.randperm(count, generator=generator) for _ in range(rounds)])[:added]
    times = 1 + torch.bincount(drawn, minlength=count).to(part.down.weight.dtype)
    sources = torch.cat([torch.arange(count), drawn]).to(part.down.weight.device)
    for up in part.ups:
        rows = up.weight[sources].clone()
        if noise:
            rows[count:] += noise * up.weight.std() * randomness.normal(rows[count:], f"{words} {up.name}")
        _replace(up, rows, sources)
    columns = (part.down.weight / times.to(part.down.weight.device))[:, sources]
    _replace(part.down, columns, None)


def tell_config(model: PreTrainedModel, old: int, new: int) -> None:
    """Write the new number of channels into config and modules. Raises ValueError if the config does not hold it."""
    for module in blocks(model)[1].modules():
        for name in WIDTHS:
            if getattr(module, name, None) == old:
                setattr(module, name, new)
    config = model.config.get_text_config()
    for name in WIDTHS:
        if hasattr(config, name) and getattr(config, name) in (old, None):
            setattr(config, name, new)
            return
    raise ValueError(f"{type(model).__name__}: its config does not say the number {old} of feed-forward channels.")


def _parent(target: Target) -> str:
    return target.module_name.rpartition(".")[0]


def _replace(target: Target, weight: Tensor, rows: Tensor | None) -> None:
    """Put a weight [out, in] of another shape into a target's module; ``rows`` are the sources of its outputs."""
    module = target.module
    stored = weight.T if target.transposed else weight
    module.weight = nn.Parameter(stored.contiguous(), requires_grad=False)
    bias = getattr(module, "bias", None)
    if rows is not None and isinstance(bias, Tensor):
        module.bias = nn.Parameter(bias.detach()[rows].clone(), requires_grad=False)
    for name, value in (
        ("out_features", weight.shape[0]),
        ("in_features", weight.shape[1]),
        ("nf", weight.shape[0]),
        ("nx", weight.shape[1]),
    ):
        if hasattr(module, name):
            setattr(module, name, value)
