"""Fused experts: mixture-of-experts weights that one module holds as 3-D parameters [experts, ., .].

transformers marks such a class with ``is_transposed``, ``has_gate`` and ``has_bias`` (its
``integrations.moe.use_experts_implementation``) and gives it one calling convention: hidden states [tokens, d], the
chosen experts [tokens, k], their weights [tokens, k]. That is all this module relies on, so that every architecture
with fused experts is one case.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


def is_fused(module: nn.Module) -> bool:
    """True if ``module`` holds fused experts in the form that transformers marks."""
    return hasattr(module, "is_transposed") and hasattr(module, "has_gate") and hasattr(module, "down_proj")


def first_projection(module: Any) -> str:
    """The name of the parameter that reads the hidden states; ``down_proj`` reads what comes out of it."""
    return "gate_up_proj" if module.has_gate else "up_proj"


def count(module: Any) -> int:
    """The number of experts that the module holds."""
    return len(module.down_proj)


def routed(args: tuple, kwargs: dict) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (hidden states [tokens, d], chosen experts [tokens, k] int64) of one call of a fused module."""
    tensors = [value for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor)]
    hidden = next(value for value in tensors if value.is_floating_point())
    chosen = next(value for value in tensors if not value.is_floating_point())
    return hidden.reshape(-1, hidden.shape[-1]), chosen.reshape(-1, chosen.shape[-1])


def rows(hidden: torch.Tensor, chosen: torch.Tensor, expert: int) -> torch.Tensor:
    """Return the hidden states [rows, d] that go to one expert; rows is 0 if nobody chose it."""
    return hidden[(chosen == expert).any(dim=-1)]


def intermediate(module: Any, expert: int, x: torch.Tensor) -> torch.Tensor:
    """Return what ``down_proj`` of one expert reads, made with the weights that the expert has now.

    Args:
        module: the fused module.
        expert: index of the expert.
        x: [rows, d] hidden states that are routed to it.
    """
    name = first_projection(module)
    weight = getattr(module, name)[expert]
    out = x @ (weight if module.is_transposed else weight.T)
    if module.has_bias:
        out = out + getattr(module, f"{name}_bias")[expert]
    return module._apply_gate(out) if module.has_gate else module.act_fn(out)
