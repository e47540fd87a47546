"""AWQ's two searches on one matrix: a scale for every input channel, and the range of every grid.

Plain functions on tensors. The error of the outputs is measured with the mean of x xᵀ, G: a change D of the weight
changes the outputs by tr(D G Dᵀ) on average, so no samples of the inputs are needed (Lin et al., 2023, arXiv
2306.00978).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from hemorrhage.methods import tensors

POINTS = 20  # of the grid of exponents, 0 to 0.95
SHRINKS = 10  # ranges that are tried, from the whole one down in steps of 1/20
SMALLEST = 1e-4  # a channel that was always 0 counts as this


def scales(mean: Tensor, ratio: float) -> Tensor:
    """Return the scale of every input channel, [in]: mean|x|^ratio, divided by the square root of max · min."""
    scale = mean.pow(ratio).clamp(min=SMALLEST)
    return scale / (scale.max() * scale.min()).sqrt()


def scaled(weight: Tensor, scale: Tensor, quantize: Callable[[Tensor], Tensor]) -> Tensor:
    """Return the dense weight that a quantised W·s with inputs x/s amounts to: quantize(W·s)/s."""
    return quantize(weight * scale).div_(scale)


def search_ratio(
    weight: Tensor, gram: Tensor, mean: Tensor, quantize: Callable[[Tensor], Tensor]
) -> tuple[float, Tensor]:
    """Return (ratio, error by row [out]) of the point of the grid with the smallest error of the outputs.

    The grid holds 0, plain rounding, so the error is never above that of plain rounding.

    Args:
        weight: [out, in] float32, all targets that share the input.
        gram: [in, in] float32, the mean of x xᵀ.
        mean: [in] float32, the mean of |x|.
        quantize: rounds a weight of this shape.
    """
    best, least = 0.0, tensors.output_energy(quantize(weight) - weight, gram)
    for point in range(1, POINTS):
        ratio = point / POINTS
        error = tensors.output_energy(scaled(weight, scales(mean, ratio), quantize) - weight, gram)
        if float(error.sum()) < float(least.sum()):
            best, least = ratio, error
    return best, least


def clip(weight: Tensor, gram: Tensor, group: int, quantize: Callable[[Tensor], Tensor]) -> Tensor:
    """Return ``weight`` with every group of a row cut to the range ±c that makes its outputs most exact when rounded.

    Each group is judged by its own share of the output. c is the largest |w| times 1, 0.95, … 0.55.

    Args:
        weight: [out, in] float32.
        gram: [in, in] float32, the mean of x xᵀ of the inputs that this weight meets.
        group: neighbours of a row that share a grid, a divisor of ``in``.
        quantize: rounds a weight of this shape.
    """
    grouped = weight.reshape(len(weight), -1, group)
    number = grouped.shape[1]
    grams = gram.reshape(number, group, number, group).diagonal(dim1=0, dim2=2).permute(2, 0, 1)
    peak = grouped.abs().amax(dim=2, keepdim=True)
    best, least = peak, torch.full_like(peak, float("inf"))
    for shrink in range(SHRINKS):
        limit = peak * (1 - shrink / (2 * SHRINKS))
        change = (quantize(grouped.clamp(-limit, limit).reshape(weight.shape)) - weight).reshape(grouped.shape)
        parts = change.transpose(0, 1)
        error = ((parts @ grams) * parts).sum(dim=2).T[..., None]
        best = torch.where(error < least, limit, best)
        least = torch.minimum(error, least)
    return grouped.clamp(-best, best).reshape(weight.shape)
