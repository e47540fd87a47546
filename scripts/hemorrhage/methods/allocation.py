"""How the sparsity is shared among the blocks: the same for all, or by their outliers (OWL).

OWL scores every weight of the dense model by |W|·‖X‖ as Wanda does. A score above M times the mean of its block is an
outlier; the block with the largest share of outliers keeps the largest share of its weights, the block with the
smallest share the smallest, 2λ less:

    keep = (outliers − min) / (max − min) · 2λ − mean + (1 − s)

The published code leaves it at that: a block may be asked to keep less than nothing or more than all (it then prunes
1 %), and the model as a whole misses s. Here kept shares are clipped to [0, 1] and all shifted by one constant until
the targets as a whole have exactly the asked sparsity. It costs one forward pass.

Yin et al., Outlier Weighed Layerwise Sparsity (OWL), 2023 (arXiv 2310.05175).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from hemorrhage.activations import calibration
from hemorrhage.architecture import targets

HALVINGS = 80  # of an interval of width 4: far below the rounding of a double


def shares(model: PreTrainedModel, tokens: torch.Tensor | None, settings: Any, chunk: int | None) -> list[float] | None:
    """Return the sparsity of every block that the settings ask for, None if all have the same.

    Args:
        model: the model before it is pruned.
        tokens: [N, L] calibration tokens; without OWL none are needed.
        settings: a ``pruning.CalibratedSettings``.
        chunk: sequences in one forward pass; None for all.
    """
    if settings.allocation == "uniform" or tokens is None:
        return None
    sizes = np.zeros(len(targets.blocks(model)[1]))
    for target in targets.find(model):
        sizes[target.block] += target.weight.numel()
    ratios = outlier_ratios(model, tokens, settings.outlier_factor, chunk)
    return [1 - float(kept) for kept in kept_shares(ratios, sizes, settings.sparsity, settings.allocation_spread)]


def outlier_ratios(model: PreTrainedModel, tokens: torch.Tensor, factor: float, chunk: int | None = None) -> np.ndarray:
    """Return per block the share of weights whose |W|·‖X‖ is above ``factor`` times the block's mean.

    Experts that no token reached have no scores and are left out.
    """
    seen: list[list[tuple[targets.Target, torch.Tensor]]] = [[] for _ in targets.blocks(model)[1]]

    def visit(group) -> None:
        if group.rows:
            norm = group.square_mean().sqrt()
            seen[group.block] += [(target, norm) for target in group.targets]

    calibration.walk(model, tokens, visit, statistics=("square_mean",), chunk=chunk)
    return np.array([_outlier_ratio(block, factor) for block in seen])


def kept_shares(ratios: np.ndarray, sizes: np.ndarray, sparsity: float, spread: float) -> np.ndarray:
    """Return the share of weights that each block keeps; weighted by ``sizes`` their mean is 1 − sparsity.

    Args:
        ratios: share of outliers of each block.
        sizes: number of weights of each block; a block without weights is given 1 − sparsity and counts nothing.
        sparsity: share of all weights to prune.
        spread: λ; before clipping, kept shares span 2λ.
    """
    low, high = ratios.min(), ratios.max()
    raised = (ratios - low) / (high - low) * 2 * spread if high > low else np.zeros(len(ratios))
    wanted = raised - raised.mean() + (1 - sparsity)
    below, above = -2.0, 2.0  # every kept share is clipped to 0 by the one shift, to 1 by the other
    for _ in range(HALVINGS):
        shift = (below + above) / 2
        if np.average(np.clip(wanted + shift, 0, 1), weights=sizes) < 1 - sparsity:
            below = shift
        else:
            above = shift
    return np.where(sizes > 0, np.clip(wanted + above, 0, 1), 1 - sparsity)


def _outlier_ratio(block: list[tuple[targets.Target, torch.Tensor]], factor: float) -> float:
    count = sum(target.weight.numel() for target, _ in block)
    if not count:
        return 0.0
    mean = sum(float((target.weight.abs().float() * norm).sum(dtype=torch.float64)) for target, norm in block) / count
    above = sum(int((target.weight.abs().float() * norm > factor * mean).sum()) for target, norm in block)
    return above / count
