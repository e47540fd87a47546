"""Dropping whole blocks: depth pruning, after which the model is smaller and faster on any device.

Which blocks go is decided once, on the unchanged model: those that change the residual stream least on calibration
text (block influence), or those of a place in the stack. Without healing by training it breaks early. It costs one
forward pass over the calibration tokens.

Men et al., ShortGPT: Layers in Large Language Models are More Redundant Than You Expect, 2024 (arXiv 2403.03853).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hemorrhage.settings import Axis, require, whole

NEEDS = frozenset({"calibration"})
AXIS = Axis("blocks", harmless=0, integer=True, unit="blocks dropped")
NEUTRAL = {"blocks": 0}
EXAMPLE = {"blocks": 1}
REPAIRS: tuple[str, ...] = ()
WHERE = ("influence", "first", "middle", "last")


@dataclass(frozen=True)
class Settings:
    """How many blocks go, and which.

    Attributes:
        blocks: how many, 0 or more; at least one block must stay.
        where: "influence" (lowest first), "first", "middle" (and outwards) or "last".
        calibration: name of the calibration set on which influence is measured.
    """

    blocks: int = 1
    where: str = "influence"
    calibration: str = "default"

    def __post_init__(self) -> None:
        object.__setattr__(self, "blocks", whole("blocks", self.blocks, 0))
        require(self.where, WHERE, "where")


def refuse(settings: Settings, facts: dict[str, int]) -> None:
    """Raise ValueError if no block would stay, by what a config.json tells."""
    depth = facts.get("num_hidden_layers")
    if depth is not None and settings.blocks >= depth:
        raise ValueError(f"blocks: {settings.blocks} cannot be dropped from {depth}; at least one must stay.")


def apply(model, settings: Settings, data) -> dict[str, Any]:
    """Drop the blocks; returns which, and the influence of every block where it was measured.

    Raises ValueError if no block would stay, or the architecture fixes by depth what a block is.
    """
    from hemorrhage.architecture import blocks, targets

    depth = len(targets.blocks(model)[1])
    refuse(settings, {"num_hidden_layers": depth})
    chosen, influence = blocks.order(model, settings.where, data.tokens(settings.calibration), data.chunk)
    dropped = sorted(chosen[: settings.blocks])
    layer_map = [index for index in range(depth) if index not in dropped]
    if dropped:
        blocks.rearrange(model, layer_map)
    return {"dropped": dropped, "share": len(dropped) / depth, "influence": influence, "layer_map": layer_map}
