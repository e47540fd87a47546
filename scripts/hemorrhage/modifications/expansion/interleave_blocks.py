"""Duplicating blocks in place, evenly over the depth: block 3 is followed by its copy, block 7 by its own, and so on.

With as many copies as blocks every block runs twice in a row. Nothing is chosen by data, so it is the plain control of
``repeat_blocks``, which begins with the blocks of least influence. The repairs are those of every method that repeats
blocks. It costs nothing but the copies; a fitted scale costs twelve forward passes over some calibration text.

Depth expansion by duplication, as in Kim et al., SOLAR 10.7B, 2023 (arXiv 2312.15166), without its continued training.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hemorrhage.architecture import repairs
from hemorrhage.settings import Axis, whole

NEEDS = frozenset({"calibration"})
AXIS = Axis("blocks", harmless=0, integer=True, unit="blocks added")
NEUTRAL = {"blocks": 0}
EXAMPLE = {"blocks": 2}
REPAIRS: tuple[str, ...] = ()
CHANGES = "blocks"


@dataclass(frozen=True)
class Settings:
    """How many copies are added.

    Attributes:
        blocks: how many copies in all, 0 or more.
        residual_scale: see ``repairs.py``, with ``scaled`` and ``attenuation``.
        calibration: name of the calibration set on which a scale is fitted.
    """

    blocks: int = 1
    residual_scale: str | float = "none"
    scaled: str = "copies"
    attenuation: float = 1.0
    calibration: str = "default"

    def __post_init__(self) -> None:
        object.__setattr__(self, "blocks", whole("blocks", self.blocks, 0))
        repairs.check(self)


def apply(model, settings: Settings, data) -> dict[str, Any]:
    """Add the copies; returns which blocks were repeated.

    Raises ValueError if the architecture fixes by depth what a block is.
    """
    from hemorrhage.architecture import expansion, targets

    depth = len(targets.blocks(model)[1])
    repeated = expansion.spread(settings.blocks, depth)
    found = expansion.expand(
        model, expansion.with_copies(depth, repeated), repairs.of(settings), lambda: data.tokens(settings.calibration)
    )
    return {"repeated": repeated, **found}
