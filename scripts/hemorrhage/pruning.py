"""What every unstructured pruning method shares: its sparsity setting, cutting weights by score, and their count."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from hemorrhage.settings import between

if TYPE_CHECKING:
    from torch import Tensor

    from hemorrhage.targets import Target

PATTERN = re.compile(r"^(\d+):(\d+)$")


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


def refuse_width(pattern: str | None, name: str, width: int) -> None:
    """Raise ValueError if the groups of a pattern do not divide the rows of ``name``."""
    if pattern is not None and width % parts(pattern)[1]:
        raise ValueError(f"pattern: groups of {parts(pattern)[1]} do not divide the width {width} of {name}.")


class Cutter:
    """Prunes one target after the other and counts what it pruned.

    Args:
        settings: of the method, with ``sparsity`` (share to prune of every comparison group) and ``pattern``.
        per: comparison group of plain sparsity, "row" or "matrix".
    """

    def __init__(self, settings: Any, per: str) -> None:
        self.sparsity, self.pattern, self.per = settings.sparsity, settings.pattern, per
        self.pruned = self.zero = self.weights = self.targets = 0
        self.error = self.energy = 0.0

    def cut(self, target: Target, score: Tensor) -> None:
        """Set the weights of ``target`` with the lowest ``score`` [out, in] to zero."""
        from hemorrhage import tensors

        weight = target.weight
        tensors.require_finite(score, f"the scores of {target.name}")
        if self.pattern is None:
            keep = tensors.keep_mask(score, self.sparsity, self.per)
        else:
            refuse_width(self.pattern, target.name, target.in_features)
            keep = tensors.keep_mask_nm(score, *parts(self.pattern))
        result = weight.masked_fill(~keep, 0)
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
        return {
            "sparsity": self.pruned / self.weights,
            "zeros": self.zero / self.weights,
            "pruned": self.pruned,
            "weights": self.weights,
            "targets": self.targets,
            "relative_error": (self.error / self.energy) ** 0.5 if self.energy else 0.0,
        }
