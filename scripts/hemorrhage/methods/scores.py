"""Scores of a weight matrix [out, in] by which pruning methods choose: plain functions on tensors, float32."""

from __future__ import annotations

import torch
from torch import Tensor


def wanda(weight: Tensor, norm: Tensor | float) -> Tensor:
    """Return |W|·‖X‖ with the norm of each input channel, [in]."""
    return weight.abs().float() * norm


def ria(weight: Tensor, norm: Tensor | float, exponent: float) -> Tensor:
    """Return (|W| / Σ of its column + |W| / Σ of its row) · ‖X‖^a; a row or column of zeros scores 0."""
    size = weight.abs().float()
    tiny = torch.finfo(torch.float32).tiny
    relative = size / size.sum(0, keepdim=True).clamp_min(tiny) + size / size.sum(1, keepdim=True).clamp_min(tiny)
    return relative * norm**exponent


def pruner_zero(weight: Tensor, gradient: Tensor) -> Tensor:
    """Return W² · mms(G), with mms(G) = (G − min) / (max − min) over the matrix; 1 where all of G are equal."""
    low, high = gradient.min(), gradient.max()
    scaled = (gradient - low) / (high - low) if bool(high > low) else torch.ones_like(gradient)
    return weight.float().square() * scaled.float()


def taylor(weight: Tensor, gradient: Tensor) -> Tensor:
    """Return |W · G|, the first-order change of the loss when a weight becomes zero."""
    return weight.abs().float() * gradient.float()
