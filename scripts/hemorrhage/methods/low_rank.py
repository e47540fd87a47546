"""Matrices of low rank: the best approximation of W·S of a rank, and what every method of the family shares.

A method is its S: the identity (plain singular values), a scale by input channel, or the Cholesky factor of the Gram
matrix of the inputs. Singular vectors are taken from the smaller of A·Aᵀ and Aᵀ·A with A = W·S, in float64, which costs
a fraction of a full decomposition and leaves the error far below that of float32 weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hemorrhage.settings import between, require

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor
    from transformers import PreTrainedModel

    from hemorrhage.activations.inputs import Group
    from hemorrhage.architecture.targets import Target

ORDERS = ("linear", "block")
FIRST_DAMPING, MOST_DAMPING, ESCALATION = 1e-9, 1.0, 10.0


@dataclass(frozen=True)
class Settings:
    """How much of every matrix goes.

    Attributes:
        ratio: share of the parameters that are removed when a matrix [m, n] is stored as two factors of rank r,
            r·(m + n) = (1 − ratio)·m·n; 0 leaves the matrix whole.
    """

    ratio: float = 0.2

    def __post_init__(self) -> None:
        """Raise ValueError naming the setting that is wrong."""
        object.__setattr__(self, "ratio", between("ratio", self.ratio, 0, 0.99))


@dataclass(frozen=True)
class CalibratedSettings(Settings):
    """How much of every matrix goes, and on which text its inputs are seen.

    Attributes:
        calibration: name of the calibration set.
        order: "linear" (each target sees all truncated ones before it) or "block" (targets of one block see the block
            as it was).
    """

    calibration: str = "default"
    order: str = "linear"

    def __post_init__(self) -> None:
        """Raise ValueError naming the setting that is wrong."""
        super().__post_init__()
        require(self.order, ORDERS, "order")


def rank_for(ratio: float, rows: int, columns: int) -> int:
    """Return the largest rank whose two factors hold at most (1 − ratio)·rows·columns numbers; at least 1."""
    return max(1, int((1 - ratio) * rows * columns / (rows + columns) + 1e-9))


def truncate(weight: Tensor, rank: int, scale: Tensor | None = None) -> Tensor:
    """Return the Ŵ [out, in] of rank ``rank`` that minimises ‖(W − Ŵ)·S‖, in float32.

    Args:
        weight: W [out, in].
        rank: at most min(out, in).
        scale: S, lower triangular [in, in] or a diagonal as [in], invertible; None for the identity.
    """
    import torch

    whole = weight.double()
    scaled = whole if scale is None else whole * scale if scale.dim() == 1 else whole @ scale.double()
    if weight.shape[0] <= weight.shape[1]:
        basis = torch.linalg.eigh(scaled @ scaled.T).eigenvectors[:, -rank:]  # left singular vectors U
        return (basis @ (basis.T @ whole)).float()  # U·Uᵀ·(W·S)·S⁻¹
    basis = torch.linalg.eigh(scaled.T @ scaled).eigenvectors[:, -rank:]  # right singular vectors V
    return ((scaled @ basis) @ _unscaled(basis.T, scale)).float()  # W·S·V·Vᵀ·S⁻¹


def whitening(gram: Tensor, damping: float) -> tuple[Tensor, float]:
    """Return (S, damping used): S lower triangular with S·Sᵀ = gram + damping · mean(diagonal) · I, in float64.

    Damping grows tenfold until the matrix has a factor, as with fewer tokens than channels. A matrix of zeros (no input
    at all) counts as the identity.

    Raises ValueError if a value is not finite, or no damping helps.
    """
    import torch

    gram = gram.double()
    identity = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    mean = float(gram.diagonal().mean())
    if mean == 0:
        return identity, damping
    while bool(torch.isfinite(gram).all()) and damping <= MOST_DAMPING:
        factor, failed = torch.linalg.cholesky_ex(gram + damping * mean * identity)
        if not int(failed):
            return factor, damping
        damping = max(FIRST_DAMPING, damping * ESCALATION)
    raise ValueError("the inputs of a target on the calibration tokens are not finite, or too large to be squared.")


class Truncater:
    """Truncates one target after the other and counts what two factors in its place would hold."""

    def __init__(self, ratio: float) -> None:
        self.ratio = ratio
        self.kept = self.weights = self.targets = 0
        self.ranks: dict[str, int] = {}
        self.error = self.energy = self.output_error = self.output_energy = 0.0

    def cut(self, target: Target, scale: Tensor | None = None, gram: Tensor | None = None) -> None:
        """Truncate ``target`` under ``scale`` (see ``truncate``); ``gram`` [in, in] or [in] weighs the output error."""
        from hemorrhage.methods import tensors

        weight = tensors.require_finite(target.weight, target.name).clone()
        rank = rank_for(self.ratio, *weight.shape)
        result = truncate(weight, rank, scale).to(weight.dtype)
        error, energy = tensors.relative_error(weight, result)
        target.write(result)
        self.ranks[f"{weight.shape[0]}x{weight.shape[1]}"] = rank
        self.kept += rank * sum(weight.shape)
        self.weights += weight.numel()
        self.targets += 1
        self.error, self.energy = self.error + error, self.energy + energy
        if gram is not None:
            self.output_error += float(tensors.output_energy(weight.float() - result.float(), gram).sum())
            self.output_energy += float(tensors.output_energy(weight.float(), gram).sum())

    def achieved(self) -> dict[str, Any]:
        """Return the removed share, ranks by shape, parameters as factors, and the relative errors."""
        counted: dict[str, Any] = {
            "ratio": 1 - self.kept / self.weights,
            "ranks": self.ranks,
            "parameters_as_factors": self.kept,
            "weights": self.weights,
            "targets": self.targets,
            "relative_error": (self.error / self.energy) ** 0.5 if self.energy else 0.0,
        }
        if self.output_energy:
            counted["relative_output_error"] = (max(self.output_error, 0.0) / self.output_energy) ** 0.5
        return counted


def walk(
    model: PreTrainedModel,
    settings: CalibratedSettings,
    data: Any,
    statistics: tuple[str, ...],
    scale: Callable[[Group], Tensor | None],
    cutter: Truncater,
) -> int:
    """Truncate every target while the calibration tokens run; returns the targets that no token reached.

    Those are truncated by their weights alone.

    Args:
        model: changed in place.
        settings: calibration set and order.
        data: what the modification reads.
        statistics: what ``scale`` reads of a group, and "gram" if the output error is wanted.
        scale: gives S of the targets of a group that tokens reach.
        cutter: truncates and counts.
    """
    from hemorrhage.activations import calibration

    unseen = 0

    def visit(group: Group) -> None:
        nonlocal unseen
        shared = scale(group) if group.rows else None
        gram = group.gram() if group.rows and "gram" in statistics else None
        for target in group.targets:
            unseen += not group.rows
            cutter.cut(target, shared, gram)

    calibration.walk(
        model, data.tokens(settings.calibration), visit, order=settings.order, chunk=data.chunk, statistics=statistics
    )
    return unseen


def _unscaled(rows: Tensor, scale: Tensor | None) -> Tensor:
    """``rows`` [r, in] times S⁻¹."""
    import torch

    if scale is None:
        return rows
    if scale.dim() == 1:
        return rows / scale
    return torch.linalg.solve_triangular(scale.double(), rows, upper=False, left=False)
