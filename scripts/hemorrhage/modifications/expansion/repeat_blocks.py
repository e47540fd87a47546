"""Repeating blocks in place: depth expansion without training, as in passthrough merges.

A chosen block runs again on its own output, so that its residual update and its attention are applied twice. Which
blocks are chosen is decided once, on the unchanged model: those that change the residual stream least on calibration
text (block influence), or those of a place in the stack. Beyond one copy of every block, blocks get further copies in
the same order. The model grows; it costs one forward pass over the calibration tokens.

Depth up-scaling without its continued training: Kim et al., SOLAR 10.7B, 2023 (arXiv 2312.15166).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hemorrhage.settings import Axis, require, whole

NEEDS = frozenset({"calibration"})
AXIS = Axis("blocks", harmless=0, integer=True, unit="blocks added")
NEUTRAL = {"blocks": 0}
EXAMPLE = {"blocks": 1}
REPAIRS: tuple[str, ...] = ()
WHERE = ("influence", "first", "middle", "last")


@dataclass(frozen=True)
class Settings:
    """How many copies are added, and of which blocks.

    Attributes:
        blocks: how many copies in all, 0 or more.
        where: "influence" (lowest first), "first", "middle" (and outwards) or "last".
        calibration: name of the calibration set on which influence is measured.
    """

    blocks: int = 1
    where: str = "influence"
    calibration: str = "default"

    def __post_init__(self) -> None:
        object.__setattr__(self, "blocks", whole("blocks", self.blocks, 0))
        require(self.where, WHERE, "where")


def apply(model, settings: Settings, data) -> dict[str, Any]:
    """Add the copies; returns which blocks were repeated, and the influence of every block where it was measured.

    Raises ValueError if the architecture fixes by depth what a block is.
    """
    from hemorrhage import blocks, targets

    depth = len(targets.blocks(model)[1])
    chosen, influence = blocks.order(model, settings.where, data.tokens(settings.calibration), data.chunk)
    repeated = sorted(chosen[place % depth] for place in range(settings.blocks))
    layer_map = sorted([*range(depth), *repeated])
    if repeated:
        blocks.rearrange(model, layer_map)
    return {"repeated": repeated, "share": len(repeated) / depth, "influence": influence, "layer_map": layer_map}
