"""Optimal brain surgeon, column by column: prune a weight, and let the weights after it in its row make up for it.

The solver of SparseGPT (Frantar and Alistarh, 2023, arXiv 2301.00774), on the transpose: a column of the weight is a
contiguous row here, so one step is three vectorised operations on all rows of all matrices that share the input. The
update of the columns after a block is one product.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from hemorrhage.methods import tensors


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
    if groups:
        block = groups[1] * max(1, block // groups[1])
    for start in range(0, len(work), block):
        end = min(start + block, len(work))
        if groups is None:
            edges = factor.diagonal()[start:end, None]
            _choose(work[start:end] / edges, drop[start:end], rows, shares, start)
        errors = _solve(work[start:end], drop[start:end], factor[start:end, start:end], groups)
        work[end:].addmm_(factor[start:end, end:].T, errors, alpha=-1)
    keep = drop == 0
    work.mul_(keep)
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


def _solve(columns: Tensor, drop: Tensor, factor: Tensor, groups: tuple[int, int] | None) -> Tensor:
    """Prune a block ``columns`` [n, rows] in place by ``drop``, which groups fill; returns its errors [n, rows].

    A column collects the errors before it when its turn comes: one product that reads, where updating all later
    columns at once would read and write. The columns of a group n:m are compared, so they collect them together.
    """
    errors = torch.empty_like(columns)
    coefficients = factor.T.contiguous()
    edges = factor.diagonal()[:, None]
    gates = drop / edges
    first = 0
    for index, (column, gate, error) in enumerate(zip(columns, gates, errors, strict=True)):
        if groups and index % groups[1] == 0:
            first, last = index, index + groups[1]
            columns[first:last].addmm_(coefficients[first:last, :first], errors[:first], alpha=-1)
            score = (columns[first:last] / edges[first:last]).abs().T.contiguous()
            drop[first:last] = (~tensors.keep_mask_nm(score, *groups)).T.to(drop.dtype)
            gates[first:last] = drop[first:last] / edges[first:last]
        if index > first:
            column.addmv_(errors[first:index].T, coefficients[index, first:index], alpha=-1)
        torch.mul(column, gate, out=error)
    return errors
