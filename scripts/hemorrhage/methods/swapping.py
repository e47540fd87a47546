"""Refine a mask by swaps that bring the expected output of every row back: regrow one weight, prune another.

Dynamic Sparse No Training (DSnoT): pruning a weight takes W·x̄ (x̄ the mean of its input) out of the expected output of
its row. While what is missing is larger than a threshold, the row regrows the pruned weight that gives most of it back
for the least variance of its input, and prunes a kept one of little Wanda score whose loss has the other sign.

Zhang et al., Dynamic Sparse No Training: Training-Free Fine-tuning for Sparse LLMs, 2023 (arXiv 2310.08915).
"""

from __future__ import annotations

import torch
from torch import Tensor


def refine(
    weight: Tensor, keep: Tensor, mean: Tensor, variance: Tensor, cost: Tensor, threshold: float, cycles: int
) -> tuple[Tensor, int]:
    """Return the mask after the swaps, with as many kept weights in every row as before, and the number of swaps.

    As in the reference code, a row goes on when a swap overshoots, and stops when little is missing, or (which the
    reference code does not see) when it has no weight of the needed sign left.

    Args:
        weight: [out, in] dense.
        keep: [out, in] the mask to refine.
        mean: [in] mean of the input.
        variance: [in] variance of the input.
        cost: [out, in] score by which kept weights are pruned, lowest first.
        threshold: what may be missing from the expected output of a row.
        cycles: most swaps in a row.
    """
    keep = keep.clone()
    given = weight.float() * mean
    missing = (given * ~keep).sum(1)
    grow, prune = _candidates(given, keep, variance, cost, cycles)
    rows = torch.arange(len(weight), device=weight.device)
    turn = torch.zeros((2, 2, len(weight)), dtype=torch.long, device=weight.device)  # how many of each list are used
    alive, swaps = torch.ones_like(missing, dtype=torch.bool), 0
    for _ in range(cycles):
        lacks = (missing > 0).long()  # regrow a positive weight and prune a negative one, or the other way round
        growing = _next(grow, lacks, turn[0, lacks, rows], rows)
        pruning = _next(prune, 1 - lacks, turn[1, 1 - lacks, rows], rows)
        alive &= (missing.abs() > threshold) & (growing >= 0) & (pruning >= 0)
        chosen = alive.nonzero()[:, 0]
        if not len(chosen):
            break
        back, gone = growing[chosen], pruning[chosen]
        keep[chosen, back], keep[chosen, gone] = True, False
        missing[chosen] += given[chosen, gone] - given[chosen, back]
        turn[0, lacks[chosen], chosen] += 1
        turn[1, 1 - lacks[chosen], chosen] += 1
        swaps += len(chosen)
    return keep, swaps


def refine_groups(
    weight: Tensor, keep: Tensor, mean: Tensor, variance: Tensor, cost: Tensor, threshold: float, cycles: int, m: int
) -> tuple[Tensor, int]:
    """Return what ``refine`` does for masks n:m: both weights of a swap lie in one group of ``m`` neighbours.

    The pruned one is the kept weight of the group with the lowest cost, whatever its sign; a row stops at the first
    swap that would overshoot or for which the group has no weight left.
    """
    keep = keep.clone()
    given = weight.float() * mean
    missing = (given * ~keep).sum(1)
    before = missing.sign()
    grow, _ = _candidates(given, keep, variance, cost, cycles)
    cost = cost.masked_fill(~keep, torch.inf)
    rows = torch.arange(len(weight), device=weight.device)
    turn = torch.zeros((2, len(weight)), dtype=torch.long, device=weight.device)
    alive, swaps = torch.ones_like(missing, dtype=torch.bool), 0
    for _ in range(cycles):
        lacks = (missing > 0).long()
        growing = _next(grow, lacks, turn[lacks, rows], rows)
        group = growing.clamp_min(0)[:, None] // m * m + torch.arange(m, device=weight.device)
        price, place = cost.gather(1, group).min(dim=1)
        pruning = group[rows, place]
        after = missing + given[rows, pruning] - given[rows, growing.clamp_min(0)]
        alive &= (missing.abs() > threshold) & (growing >= 0) & price.isfinite() & (after.sign() == before)
        chosen = alive.nonzero()[:, 0]
        if not len(chosen):
            break
        keep[chosen, growing[chosen]], keep[chosen, pruning[chosen]] = True, False
        cost[chosen, pruning[chosen]] = torch.inf
        missing[chosen] = after[chosen]
        turn[lacks[chosen], chosen] += 1
        swaps += len(chosen)
    return keep, swaps


def _candidates(given: Tensor, keep: Tensor, variance: Tensor, cost: Tensor, cycles: int) -> tuple[Tensor, Tensor]:
    """Columns to regrow and to prune, best first, [2 (negative, positive), out, cycles]; −1 where none is left."""
    number = min(cycles, given.shape[1])
    gain = given.abs() / variance.clamp_min(torch.finfo(torch.float32).tiny)
    grow: list[Tensor] = []
    prune: list[Tensor] = []
    for signed in (given < 0, given > 0):
        for found, wanted, value in ((grow, signed & ~keep, gain), (prune, signed & keep, -cost)):
            best = value.masked_fill(~wanted, -torch.inf).topk(number, dim=1)
            found.append(best.indices.masked_fill(~wanted.gather(1, best.indices), -1))
    return torch.stack(grow), torch.stack(prune)


def _next(lists: Tensor, sign: Tensor, turn: Tensor, rows: Tensor) -> Tensor:
    """The column that every row takes next from the list of its sign, [out]; −1 at the end of a list."""
    last = lists.shape[2] - 1
    return torch.where(turn > last, -1, lists[sign, rows, turn.clamp_max(last)])
