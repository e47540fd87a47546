"""Depth up-scaling as in SOLAR: two copies of the model on top of each other, without what lies at the seam.

Of n blocks the last m of the first copy and the first m of the second are left out, so that 2(n − m) remain: n − 2m
are added, and SOLAR's 8 of 32 add 16. The axis is the number of blocks added; with none added the two copies meet in
the middle and the model is the old one. Where it does not divide evenly, one block more is left out of the first copy.
It costs nothing but the copies; a fitted scale costs twelve forward passes over some calibration text. The continued
training of the paper is left out.

Kim et al., SOLAR 10.7B: Scaling Large Language Models with Simple yet Effective Depth Up-Scaling, 2023
(arXiv 2312.15166).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hemorrhage.architecture import repairs
from hemorrhage.settings import Axis, whole

NEEDS = frozenset({"calibration"})
AXIS = Axis("blocks", harmless=0, integer=True, unit="blocks added")
NEUTRAL = {"blocks": 0}
EXAMPLE = {"blocks": 1}
REPAIRS: tuple[str, ...] = ()
CHANGES = "blocks"


@dataclass(frozen=True)
class Settings:
    """How many blocks are added.

    Attributes:
        blocks: how many, 0 to as many as the model has.
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


def refuse(settings: Settings, facts: dict[str, int]) -> None:
    """Raise ValueError if two copies do not have that many blocks, by what a config.json tells."""
    depth = facts.get("num_hidden_layers")
    if depth is not None and settings.blocks > depth:
        raise ValueError(f"blocks: two copies of {depth} blocks add at most {depth}, not {settings.blocks}.")


def apply(model, settings: Settings, data) -> dict[str, Any]:
    """Stack the two copies; returns how many blocks each lost at the seam.

    Raises ValueError if more blocks are asked for than there are, or the architecture fixes by depth what a block is.
    """
    from hemorrhage.architecture import expansion, targets

    depth = len(targets.blocks(model)[1])
    refuse(settings, {"num_hidden_layers": depth})
    missing = depth - settings.blocks
    lost = (missing - missing // 2, missing // 2)
    layer_map = [*range(depth - lost[0]), *range(lost[1], depth)]
    found = expansion.expand(model, layer_map, repairs.of(settings), lambda: data.tokens(settings.calibration))
    return {"lost_of_first": lost[0], "lost_of_second": lost[1], **found}
