"""GPTQ on one matrix: round column after column, and let the columns to come make up for the error.

Plain functions on tensors. With H the mean of x xᵀ (damped) and R upper triangular, RᵀR = H⁻¹: column j is rounded
to q_j, e_j = (w_j − q_j)/R_jj, and every later column k loses e_j·R_jk. The sum of all e² is then exactly the mean
squared error of the outputs (Frantar et al., 2022, arXiv 2210.17323). Weights are handled transposed, so that a
column lies in one piece, and all rows are handled at once; a block of columns is finished before the columns behind it
are updated with one product.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import torch
from torch import Tensor

from hemorrhage.methods import factors, grids

BLOCK = 128  # columns that are finished before the rest is updated


@dataclasses.dataclass(frozen=True)
class Options:
    """The grid and the order of the columns.

    Attributes:
        bits: 2 to 8.
        symmetric: whether grids are centred at 0.
        group: columns that share a grid in every row; None for all.
        act_order: whether columns with large inputs come first.
        static_groups: whether groups are of neighbours and their grids fit the weights as they were; else a group is of
            columns that come one after the other, and its grid fits them as they are when its turn comes.
    """

    bits: int
    symmetric: bool = False
    group: int | None = None
    act_order: bool = False
    static_groups: bool = False


def quantize(weight: Tensor, gram: Tensor, options: Options, damping: float) -> tuple[Tensor, Tensor, float]:
    """Return (quantised weight [out, in], mean squared output error of every row [out], damping used).

    Args:
        weight: [out, in] float32; it is left as it is.
        gram: [in, in] float32, the mean of x xᵀ.
        options: grid and order. The group divides ``in``.
        damping: share of the mean diagonal of ``gram`` that is added to it.
    """
    order = gram.diagonal().argsort(descending=True, stable=True) if options.act_order else None
    columns = _ordered(weight, order).clone(memory_format=torch.contiguous_format)
    # Rows are gathered several times faster than columns.
    ordered = gram if order is None else gram[order].T.contiguous()[order]
    factor, damping = factors.inverse_factor(ordered, damping)
    mean = float(gram.diagonal().mean())
    added = damping * mean if mean else 1.0  # without any input the factor is that of the identity
    result, damped_error = _round_columns(columns, factor, _grids(weight, options, order), options)
    error = damped_error - added * (result - _ordered(weight, order)).square().sum(0)
    if order is not None:
        result = torch.empty_like(result).index_copy_(0, order, result)
    return result.T, error.clamp_(min=0), damping


def _ordered(weight: Tensor, order: Tensor | None) -> Tensor:
    return weight.T if order is None else weight.T[order]


def _grids(weight: Tensor, options: Options, order: Tensor | None) -> list[grids.Grid] | None:
    """The grid of every column [out] where it is known before; None if a group gets it when its turn comes."""
    size = options.group or weight.shape[1]
    if options.group and not options.static_groups:
        return None
    groups = [_squeezed(grids.uniform(part, options.bits, options.symmetric)) for part in weight.split(size, dim=1)]
    places = range(weight.shape[1]) if order is None else order.tolist()
    return [groups[place // size] for place in places]


def _squeezed(grid: grids.Grid) -> grids.Grid:
    return grids.Grid(grid.step.flatten(), grid.low.flatten(), grid.high.flatten())


def _round_columns(
    columns: Tensor, factor: Tensor, known: list[grids.Grid] | None, options: Options
) -> tuple[Tensor, Tensor]:
    """Round ``columns`` [in, out], which are changed; returns (rounded [in, out], sum of e² [out])."""
    rounded = torch.empty_like(columns)
    total = torch.zeros(columns.shape[1], device=columns.device)
    for start, stop in _blocks(len(columns), options.group if known is None else None):
        if known is not None:
            chosen = known[start:stop]
        else:
            if start % int(options.group or 1) == 0:
                current = columns[start : start + int(options.group or 1)]
                grid = _squeezed(grids.uniform(current, options.bits, options.symmetric, dim=0))
            chosen = [grid] * (stop - start)
        errors = _round_block(columns[start:stop], rounded[start:stop], factor[start:stop, start:stop], chosen)
        total += errors.square().sum(0)
        columns[stop:].addmm_(factor[start:stop, stop:].T, errors, alpha=-1)
    return rounded, total


def _round_block(columns: Tensor, rounded: Tensor, factor: Tensor, chosen: list[grids.Grid]) -> Tensor:
    """Round a block [n, out] into ``rounded``; returns its errors e [n, out].

    A column collects the errors before it when its turn comes: one product that reads, where updating all later
    columns at once would read and write.
    """
    errors = torch.empty_like(columns)
    coefficients = factor.T.contiguous()
    diagonal = factor.diagonal().tolist()
    for index, (column, point, error, grid) in enumerate(
        zip(columns.unbind(), rounded.unbind(), errors.unbind(), chosen, strict=True)
    ):
        if index:
            column.addmv_(errors[:index].T, coefficients[index, :index], alpha=-1)
        torch.div(column, grid.step, out=point).round_().clamp_(grid.low, grid.high).mul_(grid.step)
        torch.sub(column, point, out=error).div_(diagonal[index])
    return errors


def _blocks(columns: int, group: int | None) -> Iterator[tuple[int, int]]:
    """Yield (start, stop) of the blocks; every group begins a block, so that its grid sees all errors before it."""
    size = group or columns
    for first in range(0, columns, size):
        for start in range(first, first + size, BLOCK):
            yield start, min(start + BLOCK, first + size)
