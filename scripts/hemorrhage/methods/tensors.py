"""Plain functions on tensors: quantisation grids and masks of an exact size.

Nothing here knows models. Weights are [out, in]: a row makes one output, a column meets one input channel.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from hemorrhage.methods import grids


def require_finite(tensor: Tensor, name: str) -> Tensor:
    """Return ``tensor``; raises ValueError with ``name`` and the count if a value is not finite."""
    if not all_finite(tensor):
        broken = tensor.numel() - int(torch.isfinite(tensor).sum())
        raise ValueError(f"{name}: {broken} of {tensor.numel()} values are not finite; the model cannot be modified.")
    return tensor


def all_finite(tensor: Tensor) -> bool:
    """Return whether every value is finite. A finite sum proves it in one pass; only another one is looked into."""
    return math.isfinite(float(tensor.sum())) or bool(torch.isfinite(tensor).all())


def relative_error(original: Tensor, changed: Tensor) -> tuple[float, float]:
    """Return (‖original − changed‖², ‖original‖²), to be summed over matrices before the ratio is taken."""
    original = original.float()
    return float((original - changed.float()).square().sum()), float(original.square().sum())


def pruned_count(sparsity: float, size: int) -> int:
    """Return k = floor(sparsity · size + ½), the weights to prune in a comparison group of ``size``."""
    return int(np.floor(sparsity * size + 0.5))


def keep_mask(score: Tensor, sparsity: float, per: str = "row") -> Tensor:
    """Return a boolean mask of the weights to keep: exactly ``pruned_count`` of each group have the lowest scores.

    Weights are pruned by rank, equal scores by index (the first goes first). A threshold would prune all weights
    that tie with it: the reference codes of Wanda and SparseGPT do, and fail at sparsity 1.

    Args:
        score: [out, in], larger is kept.
        sparsity: share to prune, 0 to 1.
        per: what is compared: "row" (the weights of one output) or "matrix".
    """
    rows = score if per == "row" else score.reshape(1, -1)
    pruned = pruned_count(sparsity, rows.shape[1])
    if pruned == 0:
        return torch.ones_like(score, dtype=torch.bool)
    edge = _kth_smallest(rows, pruned)
    below = rows < edge
    tied = rows == edge
    room = pruned - below.sum(dim=1, keepdim=True)
    if bool((tied.sum(dim=1, keepdim=True) > room).any()):
        tied &= tied.cumsum(dim=1) <= room
    return ~(below | tied).reshape(score.shape)


def keep_mask_nm(score: Tensor, n: int, m: int) -> Tensor:
    """Return a boolean mask of the ``n`` highest of every ``m`` neighbours in a row; ``m`` divides the width."""
    groups = score.reshape(-1, m)
    return keep_mask(groups, (m - n) / m).reshape(score.shape)


def _kth_smallest(rows: Tensor, k: int) -> Tensor:
    """The k-th smallest value (k from 1) of every row, [rows, 1]."""
    if rows.device.type == "cpu":
        # numpy's vectorised partition is ten times faster than torch's kthvalue on rows of some hundred weights.
        values = np.partition(rows.float().numpy(), k - 1, axis=1)[:, k - 1 : k]
        return torch.from_numpy(values.copy()).to(rows.dtype)
    return rows.kthvalue(k, dim=1, keepdim=True).values


def quantize_rtn(weight: Tensor, bits: int, symmetric: bool, group: int | None) -> Tensor:
    """Return ``weight`` rounded to the nearest point of a grid per output row, or per group of a row.

    The grids are those of ``grids.uniform``; a pruned weight stays 0.

    Args:
        weight: [out, in], any float type; the arithmetic is float32.
        bits: 2 to 8.
        symmetric: whether the grid is centred at 0.
        group: neighbours of a row that share a grid, a divisor of ``in``; None or 0 for the whole row.
    """
    grouped = weight.float().reshape(-1, group or weight.shape[-1])
    quantized = grids.uniform(grouped, bits, symmetric).nearest(grouped)
    return quantized.reshape(weight.shape).to(weight.dtype)


def output_energy(weight: Tensor, gram: Tensor) -> Tensor:
    """Return the mean squared output of every row, [out]: wᵀ G w with G [in, in] the mean of x xᵀ, all float32.

    Of the difference of two weights it is the mean squared error of the outputs.
    """
    return (weight @ gram).mul_(weight).sum(dim=1)


def quantize_activation(
    x: Tensor,
    bits: int,
    scale: float | Tensor | None = None,
    smooth: Tensor | None = None,
    exact: Tensor | None = None,
) -> Tensor:
    """Return ``x`` rounded to the symmetric grid with levels −(2^(b−1) − 1) to 2^(b−1) − 1.

    Args:
        x: [..., channels]; the arithmetic is float32, the result has the type of ``x``.
        bits: 2 to 16.
        scale: the step Δ of a static grid, one or one a channel; values beyond its ends are clipped. None gives every
            token (every vector along the last dimension) its own step, max|x|/(2^(b−1) − 1).
        smooth: [channels]; x/smooth is rounded, and multiplied by it again (SmoothQuant).
        exact: [k] int64, channels that are not rounded and do not count for the step of a token (LLM.int8).
    """
    top = 2 ** (bits - 1) - 1
    values = x.float() if smooth is None else x.float() / smooth
    if exact is not None:
        values = values.index_fill(-1, exact, 0)
    step = values.abs().amax(dim=-1, keepdim=True) / top if scale is None else torch.as_tensor(scale, device=x.device)
    step = grids.usable(step.float())
    result = values.div(step).round_().clamp_(-top, top).mul_(step)
    result = (result if smooth is None else result.mul_(smooth)).to(x.dtype)
    return result if exact is None else result.index_copy_(-1, exact, x.index_select(-1, exact))
