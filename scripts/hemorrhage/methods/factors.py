"""The triangular factor of an inverse Gram matrix, which column-wise solvers (optimal brain surgeon) read."""

from __future__ import annotations

import torch
from torch import Tensor

LARGEST = 1e3  # a damping above this leaves nothing of the matrix


def inverse_factor(gram: Tensor, damping: float) -> tuple[Tensor, float]:
    """Return (U, damping used): U upper triangular with UᵀU = H⁻¹ and H = gram + damping · mean(diagonal) · I.

    U is the inverse of R in H = R Rᵀ, R upper triangular, which is one Cholesky factorisation (of H read backwards) and
    one triangular inverse, half the work of inverting H and factorising the inverse. If H has no factor, as with fewer
    tokens than channels and little damping, damping grows tenfold until it has one. A matrix of zeros (no input at all)
    counts as the identity.

    Args:
        gram: [in, in] mean of x xᵀ, float32.
        damping: share of the mean diagonal that is added.

    Raises:
        ValueError: if a value is not finite, or no damping makes the matrix positive definite.
    """
    mean = float(gram.diagonal().mean())
    if not torch.isfinite(gram).all():
        raise ValueError("the inputs of the calibration tokens are not finite; the model cannot be modified.")
    identity = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    if mean == 0:
        return identity, damping
    backwards = gram.flip(0, 1)
    while damping <= LARGEST:
        factor, failed = torch.linalg.cholesky_ex(backwards + damping * mean * identity)
        if not failed:
            upper = torch.linalg.solve_triangular(factor.flip(0, 1), identity, upper=True)
            if torch.isfinite(upper).all():
                return upper, damping
        damping = max(damping, 1e-6) * 10
    raise ValueError(
        f"damping: the Gram matrix of the inputs has no Cholesky factor even with {LARGEST:g} times its "
        "mean diagonal added."
    )
