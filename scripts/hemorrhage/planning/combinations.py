"""Grids of two steps: the variants of a study that walk the axes of two modifications at once.

Only the standard library is used: the Snakefile asks whether a study has such a grid.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

EVERY = "*"  # in REPAIRS: a step that can be added to any variant, which is no modification to combine
FEWEST = 2  # levels of each step


@dataclass(frozen=True)
class Combination:
    """Two steps, each with its settings but for the level, and the variants on their grid.

    Attributes:
        steps: the names of the two steps as a sweep writes them, ``magnitude_sparsity~*`` and ``rtn_bits~*_group~64``.
        axes: facts of their axes: setting, harmless, rises, integer, unit.
        levels: of each step, from the harmless end outwards.
        variants: (level, level) -> slug.
        singles: of each step, level -> slug of the variant that does it alone.
    """

    steps: tuple[str, str]
    axes: tuple[dict[str, Any], dict[str, Any]]
    levels: tuple[tuple[float, ...], tuple[float, ...]]
    variants: dict[tuple[float, float], str]
    singles: tuple[dict[float, str], dict[float, str]]


def found(study: Mapping[str, Any]) -> list[Combination]:
    """Return every grid of a study with at least two levels of each step, in the order of its variants.

    Args:
        study: the grid of ``Study.grid()``.
    """
    cells: dict[str, dict[tuple[float, float], str]] = {}
    for slug, recipe in study["recipes"].items():
        if len(recipe) == 2 and all(_walks(step, study) for step in recipe):
            key = json.dumps([_rest(step, study) for step in recipe], sort_keys=True)
            cells.setdefault(key, {})[_level(recipe[0], study), _level(recipe[1], study)] = slug
    grids = (_combination(variants, study) for variants in cells.values())
    return [grid for grid in grids if all(len(levels) >= FEWEST for levels in grid.levels)]


def _combination(variants: dict[tuple[float, float], str], study: Mapping[str, Any]) -> Combination:
    slug = next(iter(variants.values()))
    recipe = study["recipes"][slug]
    first, second = (study["axes"][step["method"]] for step in recipe)
    levels = [
        sorted({cell[place] for cell in variants}, reverse=not axis["rises"])
        for place, axis in enumerate((first, second))
    ]
    names = [_starred(part, axis["setting"]) for part, axis in zip(slug.split("+"), (first, second), strict=True)]
    alone = [_singles(_rest(step, study), study) for step in recipe]
    return Combination(
        (names[0], names[1]), (first, second), (tuple(levels[0]), tuple(levels[1])), variants, (alone[0], alone[1])
    )


def _singles(rest: list[Any], study: Mapping[str, Any]) -> dict[float, str]:
    """The variants of one step alone with the same other settings, by level."""
    return {
        _level(recipe[0], study): slug
        for slug, recipe in study["recipes"].items()
        if len(recipe) == 1 and _walks(recipe[0], study) and _rest(recipe[0], study) == rest
    }


def _walks(step: Mapping[str, Any], study: Mapping[str, Any]) -> bool:
    axis = study["axes"].get(step["method"])
    if axis is None or EVERY in study["repairs"].get(step["method"], ()):
        return False
    level = step["settings"].get(axis["setting"])
    return isinstance(level, int | float) and not isinstance(level, bool)


def _level(step: Mapping[str, Any], study: Mapping[str, Any]) -> float:
    return float(step["settings"][study["axes"][step["method"]]["setting"]])


def _rest(step: Mapping[str, Any], study: Mapping[str, Any]) -> list[Any]:
    """A step without its level."""
    setting = study["axes"][step["method"]]["setting"]
    return [step["method"], {key: value for key, value in step["settings"].items() if key != setting}]


def _starred(part: str, setting: str) -> str:
    """A step's part of a slug with ``*`` for its level."""
    before, mark, after = part.partition(f"_{setting}~")
    rest = after.partition("_")
    return f"{before}{mark}*{rest[1]}{rest[2]}" if mark else part
