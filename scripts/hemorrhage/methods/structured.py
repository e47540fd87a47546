"""What methods that remove channels and heads share: their settings, choosing units by score, and the record."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hemorrhage.settings import between, require, whole

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor
    from transformers import PreTrainedModel

    from hemorrhage.architecture.coupling import Structure

STRUCTURES = {"both": ("channels", "heads"), "channels": ("channels",), "heads": ("heads",)}


@dataclass(frozen=True)
class Settings:
    """How much of every block goes, and of what.

    Attributes:
        ratio: share of the weights of a block's matrices that are removed with whole units, 0 to 0.95.
        structures: "both", "channels" (of the feed-forward layer) or "heads" (a key-value head with its query heads).
        calibration: name of the calibration set.
        multiple: the channels that are left are rounded to a multiple of this, which groups of weights and hardware
            need: 64 in front of a quantizer with groups of 64.
    """

    ratio: float = 0.2
    structures: str = "both"
    calibration: str = "default"
    multiple: int = 1

    def __post_init__(self) -> None:
        """Raise ValueError naming the setting that is wrong."""
        object.__setattr__(self, "ratio", between("ratio", self.ratio, 0, 0.95))
        require(self.structures, STRUCTURES, "structures")
        object.__setattr__(self, "multiple", whole("multiple", self.multiple, 1))


def unsuited(model: PreTrainedModel) -> str | None:
    """Return why the channels of an architecture cannot be removed: no dense feed-forward part, or fused experts."""
    from hemorrhage.architecture import feedforward

    return feedforward.unsuited(model)


def lowest(scores: Tensor, number: int) -> list[int]:
    """Return the ``number`` units of lowest score, in order of their place; of equal ones the first go."""
    return sorted(scores.argsort(stable=True)[:number].tolist())


def achieved(
    structures: Sequence[Structure], removed: Sequence[Sequence[int]], before: tuple[int, int], after: tuple[int, int]
) -> dict[str, Any]:
    """Return the record of a cut: which units went by block, and the weights before and after.

    Args:
        structures: what was cut.
        removed: the units that went, in the same order.
        before: (weights of all targets, parameters of the model) before the cut.
        after: the same after it.
    """
    units: dict[str, list[list[int]]] = {}
    for structure, gone in zip(structures, removed, strict=True):
        units.setdefault(structure.kind, []).append(list(gone))
    return {
        "ratio": 1 - after[0] / before[0],
        "removed": units,
        "weights_before": before[0],
        "weights_after": after[0],
        "parameters_before": before[1],
        "parameters_after": after[1],
    }


def nothing() -> dict[str, Any]:
    """Return the record of a cut of nothing."""
    return {"ratio": 0.0, "removed": {}}
