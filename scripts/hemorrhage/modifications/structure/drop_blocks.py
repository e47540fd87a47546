"""Dropping whole blocks: depth pruning, after which the model is smaller and faster on any device.

Which blocks go: those that change the residual stream least on calibration text (block influence), those of a place in
the stack, the stretch over which the stream turns least (angular), or, one after the other, the block without which the
loss is least (sleb). All but the last are decided once, on the unchanged model, and cost one forward pass over the
calibration tokens; sleb costs about half a pass for every block that is left, again for each one that goes. Without
healing by training it breaks early.

Men et al., ShortGPT, 2024 (arXiv 2403.03853), influence; Gromov et al., The Unreasonable Ineffectiveness of the Deeper
Layers, 2024 (arXiv 2403.17887), angular; Song et al., SLEB, 2024 (arXiv 2402.09025), sleb.
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
WHERE = ("influence", "first", "middle", "last", "angular", "sleb")


@dataclass(frozen=True)
class Settings:
    """How many blocks go, and which.

    Attributes:
        blocks: how many, 0 or more; at least one block must stay.
        where: "influence" (lowest first), "first", "middle" (and outwards), "last", "angular" (neighbours over which
            the stream turns least) or "sleb" (greedily by loss).
        calibration: name of the calibration set on which they are chosen.
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
    """Drop the blocks; returns which, and what was measured to choose them.

    Raises ValueError if no block would stay, or the architecture fixes by depth what a block is.
    """
    from hemorrhage.architecture import blocks, depth_choice, targets

    depth = len(targets.blocks(model)[1])
    refuse(settings, {"num_hidden_layers": depth})
    dropped, measured = depth_choice.choose(
        model, settings.where, settings.blocks, data.tokens(settings.calibration), data.chunk
    )
    layer_map = [index for index in range(depth) if index not in dropped]
    if dropped:
        blocks.rearrange(model, layer_map)
    return {"dropped": dropped, "share": len(dropped) / depth, **measured, "layer_map": layer_map}
