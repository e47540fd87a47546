"""Leaving a model early: the logits that the final norm and the output embedding make of an inner block's output."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import torch
from torch import nn

from hemorrhage.architecture.head import Head
from hemorrhage.architecture.targets import blocks
from hemorrhage.measuring.residuals import hidden_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def exit_logits(model: PreTrainedModel, hidden: torch.Tensor) -> torch.Tensor:
    """Return float32 logits [b, V] of the output [b, d] of any block.

    Raises ValueError if what follows the last block cannot be told from the model.
    """
    hidden = hidden[:, None]
    for module in after_blocks(model):
        hidden = module(hidden)
    return Head.of(model)(hidden[:, 0])


def after_blocks(model: PreTrainedModel) -> list[nn.Module]:
    """Return the modules that run between the last block and the output embedding, in order; found by watching once."""
    known = getattr(model, "_hemorrhage_exit", None)
    if known is None:
        known = _watch(model)
        object.__setattr__(model, "_hemorrhage_exit", known)  # not a submodule: it stays out of the state dict
    return known


@torch.no_grad()
def _watch(model: PreTrainedModel) -> list[nn.Module]:
    layers = blocks(model)[1]
    inside = {id(module) for module in layers.modules()}
    parents = {
        id(module) for module in model.base_model.modules() if any(child is layers for child in module.children())
    }
    found: list[nn.Module] = []
    last: list[torch.Tensor] = []

    def leave(module: nn.Module, _args: object, output: object) -> None:
        if module is layers[-1]:
            found.clear()
            last[:] = [hidden_of(output)]
        elif last and id(module) not in inside and not list(module.children()):
            found.append(module)

    with contextlib.ExitStack() as stack:
        for module in model.base_model.modules():
            if module is layers[-1] or (module is not layers and id(module) not in parents | inside):
                stack.callback(module.register_forward_hook(leave).remove)
        ids = torch.zeros(1, 2, dtype=torch.long, device=model.device)
        wanted = model.base_model(input_ids=ids, use_cache=False).last_hidden_state
    hidden = last[0]
    for module in found:
        hidden = module(hidden)
    if hidden.shape != wanted.shape or not torch.allclose(hidden, wanted, rtol=0, atol=0, equal_nan=True):
        raise ValueError(
            f"{type(model).__name__}: what follows its last block cannot be applied to an earlier one; "
            "decoders that leave early do not support it."
        )
    return found
