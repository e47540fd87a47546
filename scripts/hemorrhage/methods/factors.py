"""The triangular factor of an inverse Gram matrix, which column-wise solvers (optimal brain surgeon) read."""

from __future__ import annotations

import torch
from torch import Tensor

from hemorrhage.methods import tensors

LARGEST = 1e3  # a damping above this leaves nothing of the matrix
SMALL = 192  # rows of a triangle that is inverted directly


def inverse_factor(gram: Tensor, damping: float) -> tuple[Tensor, float]:
    """Return (U, damping used): U upper triangular with UᵀU = H⁻¹ and H = gram + damping · mean(diagonal) · I.

    U is the inverse of R in H = R Rᵀ, R upper triangular, which is one Cholesky factorisation (of H read backwards) and
    one triangular inverse, less than half the work of inverting H and factorising the inverse. If H has no factor, as
    with fewer tokens than channels and little damping, damping grows tenfold until it has one. A matrix of zeros (no
    input at all) counts as the identity.

    Args:
        gram: [in, in] mean of x xᵀ, float32.
        damping: share of the mean diagonal that is added.

    Raises:
        ValueError: if a value is not finite, or no damping makes the matrix positive definite.
    """
    mean = float(gram.diagonal().mean())
    if not tensors.all_finite(gram):
        raise ValueError("the inputs of the calibration tokens are not finite; the model cannot be modified.")
    if mean == 0:
        return torch.eye(len(gram), dtype=gram.dtype, device=gram.device), damping
    backwards = gram.flip(0, 1)
    diagonal = backwards.diagonal().clone()
    while damping <= LARGEST:
        backwards.diagonal().copy_(diagonal + damping * mean)
        factor, failed = torch.linalg.cholesky_ex(backwards)
        if not failed:
            upper = _inverse(factor.flip(0, 1))
            if tensors.all_finite(upper):
                return upper, damping
        damping = max(damping, 1e-6) * 10
    raise ValueError(
        f"damping: the Gram matrix of the inputs has no Cholesky factor even with {LARGEST:g} times its "
        "mean diagonal added."
    )


def _inverse(upper: Tensor) -> Tensor:
    """Return the inverse of an upper triangular matrix, by halves: matrix products do most of the work."""
    size = len(upper)
    if size <= SMALL:
        identity = torch.eye(size, dtype=upper.dtype, device=upper.device)
        return torch.linalg.solve_triangular(upper, identity, upper=True)
    half = size // 2
    first, second = _inverse(upper[:half, :half]), _inverse(upper[half:, half:])
    result = torch.zeros_like(upper)
    result[:half, :half], result[half:, half:] = first, second
    result[:half, half:] = (first @ upper[:half, half:] @ second).neg_()
    return result
