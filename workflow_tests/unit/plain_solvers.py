"""GPTQ and SparseGPT written out plainly in float64, one column after the other: what the fast solvers are held to."""

import math

import torch


def plain_gptq(weight, gram, options, damping=0.01):
    """The loop of the paper in float64: one weight matrix, one column at a time, everything updated at once."""
    w, h = weight.double().clone(), gram.double() + damping * gram.diagonal().mean().double() * torch.eye(len(gram))
    columns = len(h)
    order = gram.diagonal().argsort(descending=True, stable=True) if options.act_order else torch.arange(columns)
    size = options.group or columns
    fixed = [grid(w[:, start : start + size], options) for start in range(0, columns, size)]
    w, h = w[:, order], h[order][:, order]
    upper = torch.linalg.cholesky(torch.linalg.inv(h), upper=True)
    result = torch.zeros_like(w)
    for j in range(columns):
        if options.static_groups:
            step, low, high = fixed[int(order[j]) // size]
        elif j % size == 0:
            step, low, high = grid(w[:, j : j + size], options)
        result[:, j] = torch.minimum(torch.maximum(torch.round(w[:, j] / step), low), high) * step
        w[:, j:] -= ((w[:, j] - result[:, j]) / upper[j, j])[:, None] * upper[j, j:]
    back = torch.empty_like(result)
    back[:, order] = result
    return back


def grid(part, options):
    """(step, lowest, highest multiple) for every row."""
    if options.symmetric:
        top = 2 ** (options.bits - 1) - 1
        return part.abs().amax(1) / top, torch.full((len(part),), -top), torch.full((len(part),), top)
    low, high = part.amin(1).clamp(max=0), part.amax(1).clamp(min=0)
    step = (high - low) / (2**options.bits - 1)
    zero = -torch.round(low / step)
    return step, -zero, 2**options.bits - 1 - zero


def plain_sparsegpt(weight, gram, sparsity, groups=None, damping=0.01, block=128):
    """The reference code's steps on [out, in], one column after the other, with a mask of exact size."""
    weight = weight.clone().double()
    hessian = gram.double() + damping * gram.diagonal().double().mean() * torch.eye(len(gram), dtype=torch.double)
    factor = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(hessian)), upper=True)
    drop = torch.zeros_like(weight, dtype=torch.bool)
    for start in range(0, weight.shape[1], block):
        end = min(start + block, weight.shape[1])
        if groups is None:
            score = (weight[:, start:end] / factor.diagonal()[start:end]).square()
            count = [math.floor(sparsity * len(weight) * edge + 0.5) for edge in (start, end)]
            lowest = score.flatten().argsort()[: count[1] - count[0]]
            drop[:, start:end] = torch.zeros(score.numel(), dtype=torch.bool).index_fill(0, lowest, True).view_as(score)
        for j in range(start, end):
            if groups and j % groups[1] == 0:
                several = slice(j, j + groups[1])
                score = (weight[:, several] / factor.diagonal()[several]).square()
                lowest = score.argsort(1)[:, : groups[1] - groups[0]]
                drop[:, several] = torch.zeros_like(score, dtype=torch.bool).scatter(1, lowest, True)
            error = weight[:, j] * drop[:, j] / factor[j, j]
            weight[:, j:] -= error[:, None] * factor[j, j:]
    return drop, weight.masked_fill(drop, 0).float()
