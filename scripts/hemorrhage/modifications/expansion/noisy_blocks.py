"""Noisy copies: blocks duplicated in place whose weights get Gaussian noise, relative to each weight's own spread.

The axis is the noise: its standard deviation is ``sigma`` times that of the weight matrix. At 0 the copies are plain
duplicates (``interleave_blocks``), so the harmless end of this axis is no copy at all and lies outside it. It answers
whether a copy must be exact to be tolerated. It costs nothing but the copies.

Blocks initialised as noisy copies: a control for Wu et al., LLaMA Pro, 2024 (arXiv 2401.02415).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hemorrhage.settings import Axis, between, whole

NEEDS: frozenset[str] = frozenset()
AXIS = Axis("sigma", harmless=None, unit="noise of the copies, spread of the weights")
NEUTRAL = {"sigma": 0, "blocks": 0}
EXAMPLE = {"sigma": 0.1}
REPAIRS: tuple[str, ...] = ()
CHANGES = "copies"


@dataclass(frozen=True)
class Settings:
    """How noisy the copies are, and how many are added.

    Attributes:
        sigma: standard deviation of the noise over that of the weight, 0 to 10.
        blocks: how many copies, 0 or more, spread evenly.
    """

    sigma: float = 0.1
    blocks: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "sigma", between("sigma", self.sigma, 0, 10))
        object.__setattr__(self, "blocks", whole("blocks", self.blocks, 0))


def apply(model, settings: Settings, data) -> dict[str, Any]:
    """Add the copies and their noise; returns their places.

    Raises ValueError if the architecture fixes by depth what a block is.
    """
    from hemorrhage.architecture import blocks, expansion, randomness, targets

    depth = len(targets.blocks(model)[1])
    layer_map = expansion.with_copies(depth, expansion.spread(settings.blocks, depth))
    added = expansion.copies(layer_map)
    if added:
        blocks.rearrange(model, layer_map)
    for target in targets.find(model):
        if target.block in added:
            target.write(randomness.noisy(target.weight, settings.sigma, f"{data.seed} {target.name}"))
    return {"places": added, "share": len(added) / depth, "layer_map": layer_map}
