"""First-order importance of coupled structures: what the loss would feel, summed over all weights of a unit."""

from __future__ import annotations

import torch
from torch import Tensor

from hemorrhage.architecture.coupling import Structure
from hemorrhage.methods import pruning, tensors


def of(structure: Structure, gradients: dict[str, Tensor]) -> Tensor:
    """Return Σ |w|·|g| of every unit, [units] float32; raises ValueError if gradients are of another model.

    Args:
        structure: the units.
        gradients: gradient magnitude [out, in] by the name of a target.
    """
    total = torch.zeros(structure.units)
    for maker, rows in structure.makers:
        felt = maker.weight.abs().float() * pruning.gradient_of(gradients, maker)
        total += felt.sum(1).cpu()[rows].sum(1)
    felt = structure.reader.weight.abs().float() * pruning.gradient_of(gradients, structure.reader)
    total += felt.sum(0).cpu()[structure.columns].sum(1)
    return tensors.require_finite(total, f"the scores of {structure.reader.name}")
