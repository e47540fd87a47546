"""Repeating blocks: depth expansion without training, as in passthrough merges.

A chosen block runs again on its own output, so that its residual update and its attention are applied twice. Which
blocks are chosen is decided once, on the unchanged model: those that change the residual stream least on calibration
text (block influence), or those of a place in the stack; each is repeated in place, and beyond one copy of every block
blocks get further copies in the same order. With ``start`` it is a range that is repeated as a whole, once or many
times. The residual update of what is repeated can be scaled and its attention attenuated. The model grows; it costs one
forward pass over the calibration tokens, a fitted scale twelve passes over some of them.

Depth up-scaling without its continued training: Kim et al., SOLAR 10.7B, 2023 (arXiv 2312.15166).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hemorrhage.architecture import repairs
from hemorrhage.settings import Axis, require, whole

NEEDS = frozenset({"calibration"})
AXIS = Axis("blocks", harmless=0, integer=True, unit="blocks added")
NEUTRAL = {"blocks": 0}
EXAMPLE = {"blocks": 1}
REPAIRS: tuple[str, ...] = ()
CHANGES = "blocks"
WHERE = ("influence", "first", "middle", "last")


@dataclass(frozen=True)
class Settings:
    """How many copies are added, and of which blocks.

    Attributes:
        blocks: how many copies in all, 0 or more.
        where: "influence" (lowest first), "first", "middle" (and outwards) or "last"; a ``start`` overrules it.
        start: first block of a range that is repeated as a whole; None repeats single blocks in place.
        length: blocks in the range; None for ``blocks`` / ``times``.
        times: how often the range is repeated; None for once, or for ``blocks`` / ``length``.
        residual_scale: see ``repairs.py``, with ``scaled`` and ``attenuation``.
        calibration: name of the calibration set on which influence is measured and a scale is fitted.
    """

    blocks: int = 1
    where: str = "influence"
    start: int | None = None
    length: int | None = None
    times: int | None = None
    residual_scale: str | float = "none"
    scaled: str = "copies"
    attenuation: float = 1.0
    calibration: str = "default"

    def __post_init__(self) -> None:
        object.__setattr__(self, "blocks", whole("blocks", self.blocks, 0))
        require(self.where, WHERE, "where")
        for name, low in (("start", 0), ("length", 1), ("times", 1)):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, whole(name, getattr(self, name), low))
        if self.start is None and (self.length or self.times):
            raise ValueError("start: it is needed where length or times is given; it is the first block of the range.")
        if self.start is not None:
            self._divide()
        repairs.check(self)

    def _divide(self) -> None:
        """Make length · times the number of blocks added."""
        length = self.length or (self.blocks // (self.times or 1))
        times = self.times or (self.blocks // length if length else 1)
        if length * times != self.blocks:
            raise ValueError(
                f"blocks: {self.blocks} is not length · times with the length {self.length} and the times "
                f"{self.times} given."
            )
        object.__setattr__(self, "length", length)
        object.__setattr__(self, "times", times)


def apply(model, settings: Settings, data) -> dict[str, Any]:
    """Add the copies; returns which blocks were repeated, and the influence of every block where it was measured.

    Raises ValueError if the range does not lie in the model, or the architecture fixes by depth what a block is.
    """
    from hemorrhage.architecture import blocks, expansion, targets

    depth = len(targets.blocks(model)[1])

    def tokens():
        return data.tokens(settings.calibration)

    if settings.start is None:
        chosen, influence = blocks.order(model, settings.where, tokens(), data.chunk)
        repeated = sorted(chosen[place % depth] for place in range(settings.blocks))
        layer_map = expansion.with_copies(depth, repeated)
    else:
        end = settings.start + (settings.length or 0)
        if end > depth:
            raise ValueError(f"start: blocks {settings.start} to {end - 1} cannot be repeated in a model of {depth}.")
        influence, ranged = [], list(range(settings.start, end))
        repeated = sorted(ranged * (settings.times or 1))
        layer_map = [*range(end), *ranged * (settings.times or 1), *range(end, depth)]
    found = expansion.expand(model, layer_map, repairs.of(settings), tokens)
    return {"repeated": repeated, "influence": influence, **found}
