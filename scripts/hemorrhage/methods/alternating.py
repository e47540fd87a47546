"""Pruning by alternating directions (ADMM): the best weights for a mask, and the mask, found together.

Weights and Gram matrix are scaled so that every input channel has norm 1; then the size of a scaled weight is its
Wanda score, and a penalty of weight 1 pulls the least-squares weights towards their pruned copy.

Boža, Fast and Optimal Weight Update for Pruned Large Language Models, 2024 (arXiv 2401.02938).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from hemorrhage.methods import factors, tensors

PENALTY = 1.0


def prune(
    weights: Sequence[Tensor],
    gram: Tensor,
    shares: Sequence[float],
    groups: tuple[int, int] | None,
    damping: float,
    mask_steps: int,
    iterations: int,
) -> list[tuple[Tensor, Tensor]]:
    """Return (keep mask, new weight), both [out, in], of every weight; the new weights are float32.

    Args:
        weights: matrices [out, in] that share one input.
        gram: [in, in] mean of x xᵀ, float32; zeros (no input at all) prune by size and update nothing.
        shares: share of each matrix to prune, compared over the whole matrix; not read with groups.
        groups: (n, m) keeps n of every m neighbours in a row.
        damping: share of the mean diagonal of the scaled Gram matrix that is added to it.
        mask_steps: iterations in which the mask is chosen again, with a share that grows as 1 − (1 − t/steps)³.
        iterations: updates of the weights, at least ``mask_steps``.
    """
    if not bool(gram.any()):
        keeps = [_mask(weight.abs().float(), share, groups, 1.0) for weight, share in zip(weights, shares, strict=True)]
        return [(keep, weight.float().masked_fill(~keep, 0)) for weight, keep in zip(weights, keeps, strict=True)]
    norm = gram.diagonal().sqrt()
    norm = norm.clamp_min(1e-8 * float(norm.max()))  # weights on a dead channel are smallest, and go first
    scaled = gram / norm / norm[:, None]
    identity = torch.eye(len(scaled), dtype=scaled.dtype, device=scaled.device)
    scaled += damping * scaled.diagonal().mean() * identity
    factor, _ = factors.inverse_factor(scaled + PENALTY * identity, 0.0)
    inverse = factor.T @ factor
    return [
        _alternate(weight.float() * norm, scaled, inverse, share, groups, mask_steps, iterations, norm)
        for weight, share in zip(weights, shares, strict=True)
    ]


def _alternate(
    weight: Tensor,
    gram: Tensor,
    inverse: Tensor,
    share: float,
    groups: tuple[int, int] | None,
    mask_steps: int,
    iterations: int,
    norm: Tensor,
) -> tuple[Tensor, Tensor]:
    """ADMM on one scaled weight [out, in]; returns the mask and the weight on the original scale."""
    goal = weight @ gram @ inverse
    dual = torch.zeros_like(weight)
    for step in range(iterations):
        if step < mask_steps:
            keep = _mask((weight + dual).abs(), share, groups, 1 - (1 - (step + 1) / mask_steps) ** 3)
        pruned = (weight + dual).masked_fill_(~keep, 0)
        dual += weight - pruned
        weight = torch.addmm(goal, pruned - dual, inverse, alpha=PENALTY)
    return keep, (weight + dual).masked_fill_(~keep, 0) / norm


def _mask(size: Tensor, share: float, groups: tuple[int, int] | None, progress: float) -> Tensor:
    """The mask [out, in] when ``progress`` of the share is pruned: with groups, first the smallest of what may go."""
    if groups is None:
        return tensors.keep_mask(size, share * progress, "matrix")
    n, m = groups
    stays = tensors.keep_mask_nm(size, n, m)
    return tensors.keep_mask(size.masked_fill(stays, torch.inf), (m - n) / m * progress, "matrix")
