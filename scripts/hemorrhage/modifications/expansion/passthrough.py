"""Passthrough stacking: overlapping ranges of blocks on top of each other, as in frankenmerges of one model.

The ranges are given, first block to the one after the last (``[[0, 20], [10, 30]]``, or the text "0-20.10-30"), or
made: the stack is cut into ``parts`` of equal length and neighbours are let overlap around each cut, until ``blocks``
are added. Two parts are SOLAR's stacking (``upscale_depth``); more parts repeat shorter ranges in more places. The
repairs are those of every method that repeats blocks; a query and key attenuated by 1/√2 together with a scaled
residual update is the recipe of frankenmerge authors. It costs nothing but the copies; a fitted scale costs twelve
forward passes over some calibration text.

Goddard et al., Arcee's MergeKit, 2024 (arXiv 2403.13257), its method "passthrough".
"""

from __future__ import annotations

import re
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
FORM = re.compile(r"\d+-\d+(\.\d+-\d+)*")


@dataclass(frozen=True)
class Settings:
    """Which ranges are stacked.

    Attributes:
        blocks: how many blocks are added; None where the ranges are given.
        parts: number of ranges of equal length, made to overlap.
        ranges: the ranges themselves, as ``[[0, 20], [10, 30]]`` inside one more list (a list of values is a sweep) or
            "0-20.10-30"; None makes them from ``blocks`` and ``parts``.
        residual_scale: see ``repairs.py``, with ``scaled`` and ``attenuation``.
        calibration: name of the calibration set on which a scale is fitted.
    """

    blocks: int | None = 0
    parts: int = 4
    ranges: str | None = None
    residual_scale: str | float = "none"
    scaled: str = "copies"
    attenuation: float = 1.0
    calibration: str = "default"

    def __post_init__(self) -> None:
        object.__setattr__(self, "parts", whole("parts", self.parts, 2))
        if self.blocks is not None:
            object.__setattr__(self, "blocks", whole("blocks", self.blocks, 0))
        if self.ranges is not None:
            object.__setattr__(self, "ranges", _as_text(self.ranges))
            object.__setattr__(self, "blocks", None)
        repairs.check(self)

    def pairs(self) -> list[tuple[int, int]]:
        """The given ranges as (first, after the last)."""
        return [tuple(map(int, part.split("-"))) for part in (self.ranges or "").split(".") if part]  # type: ignore[misc]


def refuse(settings: Settings, facts: dict[str, int]) -> None:
    """Raise ValueError if a range ends beyond the model or the overlaps do not fit, by what a config.json tells."""
    depth = facts.get("num_hidden_layers")
    if depth is None:
        return
    beyond = [f"{first}-{last}" for first, last in settings.pairs() if last > depth]
    if beyond:
        raise ValueError(f"ranges: {beyond[0]} ends beyond the {depth} blocks of the model.")
    if settings.blocks and settings.blocks > (min(settings.parts, depth) - 1) * depth:
        raise ValueError(
            f"blocks: {settings.parts} ranges of a model of {depth} blocks cannot overlap by {settings.blocks}."
        )


def apply(model, settings: Settings, data) -> dict[str, Any]:
    """Stack the ranges; returns them.

    Raises ValueError if a range does not lie in the model, or the architecture fixes by depth what a block is.
    """
    from hemorrhage.architecture import expansion, targets

    depth = len(targets.blocks(model)[1])
    refuse(settings, {"num_hidden_layers": depth})
    ranges = settings.pairs() or overlapping(depth, settings.blocks or 0, settings.parts)
    layer_map = [block for first, last in ranges for block in range(first, last)]
    found = expansion.expand(model, layer_map, repairs.of(settings), lambda: data.tokens(settings.calibration))
    return {"ranges": [list(pair) for pair in ranges], **found}


def overlapping(depth: int, added: int, parts: int) -> list[tuple[int, int]]:
    """Return ``parts`` ranges that cover ``depth`` blocks and share ``added`` of them around the cuts."""
    parts = min(parts, depth)
    if not added or parts < 2:
        return [(0, depth)]
    first, ranges = 0, []
    for seam in range(1, parts):
        shared = added * seam // (parts - 1) - added * (seam - 1) // (parts - 1)
        start = min(max(seam * depth // parts - (shared + 1) // 2, 0), depth - shared)
        ranges.append((first, start + shared))
        first = start
    return [*ranges, (first, depth)]


def _as_text(ranges: object) -> str:
    """The ranges as "0-20.10-30"; raises ValueError for anything else."""
    if isinstance(ranges, list | tuple):
        try:
            ranges = ".".join(f"{whole('ranges', first, 0)}-{whole('ranges', last, 1)}" for first, last in ranges)
        except (TypeError, ValueError):
            raise ValueError(
                f"ranges: {ranges!r} is not a list of pairs of whole numbers; mind that a list of values "
                "is a sweep, so one list of ranges stands in a list of its own."
            ) from None
    if not FORM.fullmatch(str(ranges)):
        raise ValueError(f'ranges: {ranges!r} is neither [[0, 20], [10, 30]] nor "0-20.10-30".')
    if any(int(part.split("-")[0]) >= int(part.split("-")[1]) for part in str(ranges).split(".")):
        raise ValueError(
            f"ranges: {ranges!r} has a range that ends before it begins; the second number is the block after the last."
        )
    return str(ranges)
