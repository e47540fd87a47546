"""Optimal brain surgeon, column by column: prune a weight, and let the weights after it in its row make up for it.

The solver of SparseGPT (Frantar and Alistarh, 2023, arXiv 2301.00774), on the transpose: a column of the weight is a
contiguous row here, so one step is three vectorised operations on all rows of all matrices that share the input. The
update of columns further away is batched twice, over ``NEAR`` columns inside a block and over a block.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from hemorrhage.methods import tensors

NEAR = 16  # columns whose updates are made one by one; matrix products do the rest


def prune(
    weights: Sequence[Tensor],
    factor: Tensor,
    shares: Sequence[float],
    groups: tuple[int, int] | None = None,
    block: int = 128,
) -> list[tuple[Tensor, Tensor]]:
    """Return (keep mask, new weight), both [out, in], of every weight; the new weights are float32.

    A weight's score is w² / U_jj², the error that pruning it leaves after the best update of the columns after it.
    Without groups, the scores of a block of columns are compared over all rows of a matrix when the solver reaches the
    block; a block's count is rounded so that the matrix has exactly ``pruned_count`` pruned weights.

    Args:
        weights: matrices [out, in] that share one input.
        factor: U [in, in] of ``factors.inverse_factor``, float32.
        shares: share of each matrix to prune; not read with groups.
        groups: (n, m) keeps n of every m neighbours in a row, m a divisor of ``in``.
        block: columns of a block; with groups it is made a multiple of m.
    """
    rows = [len(weight) for weight in weights]
    work = torch.cat([weight.float() for weight in weights]).T.contiguous()
    drop = torch.zeros_like(work)
    near = NEAR
    if groups:
        near = groups[1] * max(1, NEAR // groups[1])
        block = near * max(1, block // near)
    for start in range(0, len(work), block):
        end = min(start + block, len(work))
        if groups is None:
            edges = factor.diagonal()[start:end, None]
            _choose(work[start:end] / edges, drop[start:end], rows, shares, start)
        errors = _solve(work, drop, factor, start, end, near, groups)
        work[end:].addmm_(factor[start:end, end:].T, errors, alpha=-1)
    keep = drop == 0
    work.masked_fill_(~keep, 0)
    return [
        (part_keep.T.contiguous(), part.T.contiguous())
        for part_keep, part in zip(keep.split(rows, dim=1), work.split(rows, dim=1), strict=True)
    ]


def _choose(scaled: Tensor, drop: Tensor, rows: list[int], shares: Sequence[float], start: int) -> None:
    """Mark in ``drop`` [columns, rows] the weights of one block to prune, by |w| / U_jj."""
    columns = len(scaled)
    for score, mark, number, share in zip(
        scaled.abs().split(rows, dim=1), drop.split(rows, dim=1), rows, shares, strict=True
    ):
        before = tensors.pruned_count(share, start * number)
        count = tensors.pruned_count(share, (start + columns) * number) - before
        mark.copy_(~tensors.keep_mask(score, count / score.numel(), "matrix"))


def _solve(
    work: Tensor, drop: Tensor, factor: Tensor, start: int, end: int, near: int, groups: tuple[int, int] | None
) -> Tensor:
    """Prune columns ``start`` to ``end`` of ``work`` [in, rows] in place; returns their errors [columns, rows]."""
    errors = torch.empty_like(work[start:end])
    diagonal = factor.diagonal().tolist()
    for first in range(start, end, near):
        last = min(first + near, end)
        for column in range(first, last):
            if groups and column % groups[1] == 0:
                several = slice(column, column + groups[1])
                score = (work[several] / factor.diagonal()[several, None]).abs().T.contiguous()
                drop[several] = (~tensors.keep_mask_nm(score, *groups)).T.to(drop.dtype)
            error = errors[column - start]
            torch.mul(work[column], drop[column], out=error).div_(diagonal[column])
            if column + 1 < last:
                work[column + 1 : last].addr_(factor[column, column + 1 : last], error, alpha=-1)
        if last < end:
            part = errors[first - start : last - start]
            work[last:end].addmm_(factor[first:last, last:end].T, part, alpha=-1)
    return errors
