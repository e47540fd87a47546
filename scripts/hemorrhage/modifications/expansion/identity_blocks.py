"""Identity blocks as in LLaMA-Pro: copies that write nothing to the residual stream, the control that loses nothing.

The blocks are spread evenly; each follows the block that it copies. All that writes to the stream is 0 in a copy (the
output projections with their biases, every expert's, or the norm after a branch), so that the block hands its input on
and only training would give it work. The logits stay equal bit for bit; a difference would be the instrument's. It
costs two passes over a few tokens.

Wu et al., LLaMA Pro: Progressive LLaMA with Block Expansion, 2024 (arXiv 2401.02415).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hemorrhage.settings import Axis, whole

NEEDS: frozenset[str] = frozenset()
AXIS = Axis("blocks", harmless=0, integer=True, unit="blocks added")
NEUTRAL = {"blocks": 0}
EXAMPLE = {"blocks": 2}
REPAIRS: tuple[str, ...] = ()
CHANGES = "copies"
LOSSLESS = True


@dataclass(frozen=True)
class Settings:
    """How many identity blocks are added.

    Attributes:
        blocks: how many, 0 or more.
    """

    blocks: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "blocks", whole("blocks", self.blocks, 0))


def apply(model, settings: Settings, data) -> dict[str, Any]:
    """Add the identity blocks; returns their places.

    Raises ValueError if what writes to the residual stream cannot be found, or the architecture fixes by depth what a
    block is.
    """
    from hemorrhage.architecture import blocks, expansion, targets, writers

    depth = len(targets.blocks(model)[1])
    layer_map = expansion.with_copies(depth, expansion.spread(settings.blocks, depth))
    added = expansion.copies(layer_map)
    if added:
        blocks.rearrange(model, layer_map)
        writers.scale(model, added, 0.0)
        writers.require_silent(model, added)
    return {"places": added, "share": len(added) / depth, "layer_map": layer_map}
