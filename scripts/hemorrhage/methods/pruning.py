"""What every unstructured pruning method shares: its settings, cutting weights by score, and their count."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hemorrhage.planning import local_config
from hemorrhage.settings import between, require

if TYPE_CHECKING:
    from torch import Tensor

    from hemorrhage.architecture.targets import Target

PATTERN = re.compile(r"^(\d+):(\d+)$")
ALLOCATIONS = ("uniform", "owl")
ORDERS = ("linear", "block")


@dataclass(frozen=True)
class CalibratedSettings:
    """What to prune, on which text the inputs are seen, and how the sparsity is shared among the blocks.

    Attributes:
        sparsity: share of weights that become zero in every comparison group, 0 to 1; a pattern implies it.
        pattern: ``n:m`` keeps n of every m neighbours in a row, such as "2:4"; None compares larger groups.
        calibration: name of the calibration set.
        allocation: "uniform" gives all blocks the same sparsity, "owl" leaves more weights to blocks with more outliers
            (``allocation.py``).
        outlier_factor: M of OWL: a score above M times its block's mean is an outlier.
        allocation_spread: λ of OWL: the kept shares of the blocks span 2λ.
    """

    sparsity: float | None = None
    pattern: str | None = None
    calibration: str = "default"
    allocation: str = "uniform"
    outlier_factor: float = 5.0
    allocation_spread: float = 0.08

    def __post_init__(self) -> None:
        """Raise ValueError naming the setting that is wrong."""
        object.__setattr__(self, "sparsity", validated(self.sparsity, self.pattern))
        require(self.allocation, ALLOCATIONS, "allocation")
        object.__setattr__(self, "outlier_factor", between("outlier_factor", self.outlier_factor, 0, 1e6))
        object.__setattr__(self, "allocation_spread", between("allocation_spread", self.allocation_spread, 0, 0.5))
        if self.allocation == "owl" and self.pattern is not None:
            raise ValueError(
                f"allocation: owl gives every block its own sparsity, but pattern '{self.pattern}' prunes "
                "the same share everywhere; leave one of them out."
            )


@dataclass(frozen=True)
class SequentialSettings(CalibratedSettings):
    """Settings of a method that prunes while the calibration tokens run through the model.

    Attributes:
        order: "linear" (each target sees all pruned ones before it) or "block" (targets of one block see the dense
            block, as in the reference codes).
    """

    order: str = "linear"

    def __post_init__(self) -> None:
        """Raise ValueError naming the setting that is wrong."""
        super().__post_init__()
        require(self.order, ORDERS, "order")


def validated(sparsity: object, pattern: object) -> float:
    """Return the sparsity that the two settings mean. Raises ValueError naming the one that is wrong.

    A pattern ``n:m`` (keep n of every m neighbours in a row) implies a sparsity, so only one of them is needed.
    """
    if pattern is None:
        if sparsity is None:
            raise ValueError("sparsity: give the share of weights to prune, 0 to 1, or a pattern such as '2:4'.")
        return between("sparsity", sparsity, 0, 1)
    n, m = parts(pattern)
    implied = 1 - n / m
    if sparsity is not None and abs(between("sparsity", sparsity, 0, 1) - implied) > 1e-9:
        raise ValueError(f"sparsity: {sparsity!r} contradicts pattern '{pattern}', which prunes {implied:g}.")
    return implied


def parts(pattern: object) -> tuple[int, int]:
    """Return (n, m) of ``n:m``; raises ValueError naming the setting."""
    match = PATTERN.match(str(pattern))
    n, m = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 0 < n <= m:
        raise ValueError(f"pattern: {pattern!r} is not 'n:m' with 0 < n <= m (quote it in YAML), such as '2:4'.")
    return n, m


def refuse(settings: Any, facts: dict[str, int]) -> None:
    """Raise ValueError if the pattern does not divide a width that targets read, by what a config.json tells."""
    for name, width in local_config.target_widths(facts).items():
        refuse_width(settings.pattern, name, width)


def refuse_width(pattern: str | None, name: str, width: int) -> None:
    """Raise ValueError if the groups of a pattern do not divide the rows of ``name``."""
    if pattern is not None and width % parts(pattern)[1]:
        raise ValueError(f"pattern: groups of {parts(pattern)[1]} do not divide the width {width} of {name}.")


def gradient_of(gradients: dict[str, Tensor], target: Target) -> Tensor:
    """Return the gradient magnitude [out, in] of a target; raises ValueError if there is none of its shape."""
    found = gradients.get(target.name)
    if found is None or tuple(found.shape) != (target.out_features, target.in_features):
        raise ValueError(
            f"calibration: the gradients hold no matrix of {target.out_features} x {target.in_features} "
            f"for {target.name}; they were collected on another model (a step before this one changed "
            "its blocks, or the file is old)."
        )
    return found.to(target.weight.device)


class Cutter:
    """Prunes one target after the other and counts what it pruned.

    Args:
        settings: of the method, with ``sparsity`` (share to prune of every comparison group) and ``pattern``.
        per: comparison group of plain sparsity, "row" or "matrix".
        shares: sparsity of every block, where it is not the same in all.
    """

    def __init__(self, settings: Any, per: str, shares: list[float] | None = None) -> None:
        self.sparsity, self.per, self.shares = settings.sparsity, per, shares
        self.pattern = settings.pattern
        self.pruned = self.zero = self.weights = self.targets = 0
        self.error = self.energy = 0.0

    def share(self, target: Target) -> float:
        """Return the share of the target's weights that is to be pruned."""
        return self.sparsity if self.shares is None else self.shares[target.block]

    def groups(self, target: Target) -> tuple[int, int] | None:
        """Return (n, m) of the pattern, None without one; raises ValueError if m does not divide the width."""
        refuse_width(self.pattern, target.name, target.in_features)
        return None if self.pattern is None else parts(self.pattern)

    def keep(self, target: Target, score: Tensor) -> Tensor:
        """Return the mask [out, in] of the weights to keep, those with the highest ``score`` [out, in]."""
        from hemorrhage.methods import tensors

        tensors.require_finite(score, f"the scores of {target.name}")
        groups = self.groups(target)
        if groups is None:
            return tensors.keep_mask(score, self.share(target), self.per)
        return tensors.keep_mask_nm(score, *groups)

    def cut(self, target: Target, score: Tensor) -> None:
        """Set the weights of ``target`` with the lowest ``score`` [out, in] to zero."""
        keep = self.keep(target, score)
        self.put(target, keep, target.weight.masked_fill(~keep, 0))

    def put(self, target: Target, keep: Tensor, result: Tensor) -> None:
        """Write ``result`` [out, in], which is zero where ``keep`` [out, in] is not, and count."""
        from hemorrhage.methods import tensors

        weight = target.weight
        result = result.to(weight.dtype)
        error, energy = tensors.relative_error(weight, result)
        if not bool(keep.all()):
            target.write(result)
        self.targets += 1
        self.weights += keep.numel()
        self.pruned += keep.numel() - int(keep.sum())
        self.zero += int((result == 0).sum())
        self.error += error
        self.energy += energy

    def achieved(self) -> dict[str, Any]:
        """Return the pruned share, the share of zeros (some were zero before), counts and the relative error."""
        counted = {
            "sparsity": self.pruned / self.weights,
            "zeros": self.zero / self.weights,
            "pruned": self.pruned,
            "weights": self.weights,
            "targets": self.targets,
            "relative_error": (self.error / self.energy) ** 0.5 if self.energy else 0.0,
        }
        return counted if self.shares is None else {**counted, "sparsity_of_blocks": self.shares}
