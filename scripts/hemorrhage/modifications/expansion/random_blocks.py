"""Randomly initialised blocks between the trained ones, drawn as the architecture draws its weights.

The worst case of depth expansion: what is added knows nothing. The blocks are spread evenly; each has the shapes of the
block before it, gains of 1 and biases of 0, and is drawn by transformers' own initialisation with a seed. It costs
nothing but the blocks.

The control of Wu et al., LLaMA Pro, 2024 (arXiv 2401.02415): expansion without copies.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hemorrhage.settings import Axis, whole

NEEDS: frozenset[str] = frozenset()
AXIS = Axis("blocks", harmless=0, integer=True, unit="blocks added")
NEUTRAL = {"blocks": 0}
EXAMPLE = {"blocks": 1}
REPAIRS: tuple[str, ...] = ()
CHANGES = "copies"


@dataclass(frozen=True)
class Settings:
    """How many random blocks are added.

    Attributes:
        blocks: how many, 0 or more.
    """

    blocks: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "blocks", whole("blocks", self.blocks, 0))


def apply(model, settings: Settings, data) -> dict[str, Any]:
    """Add the blocks; returns their places. The layer map has None for them: they copy no block.

    Raises ValueError if the architecture fixes by depth what a block is.
    """
    from hemorrhage.architecture import blocks, expansion, randomness, targets

    depth = len(targets.blocks(model)[1])
    layer_map = expansion.with_copies(depth, expansion.spread(settings.blocks, depth))
    added = expansion.copies(layer_map)
    if added:
        blocks.rearrange(model, layer_map)
        randomness.initialise(model, added, data.seed)
    mapped = [None if place in added else source for place, source in enumerate(layer_map)]
    return {"places": added, "share": len(added) / depth, "layer_map": mapped}
