"""Which variants a mitigation is compared with: the same steps without it, or with the method that it replaces.

A method whose ``REPAIRS`` names methods *replaces* one of them: its baseline has that method at the same place, at the
same level of its axis, with every other step equal. Settings that only one of the two methods has are ignored; of
several baselines those win that agree in most of the settings both have. A method whose ``REPAIRS`` is ``("*",)`` is
*added*: its baseline is the same variant without that step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hemorrhage.analysis.curves import EVERY, Curve, same_steps, walked


@dataclass(frozen=True)
class Pair:
    """A mitigation at work in a curve, and its baseline.

    Attributes:
        mitigation: name of the method.
        baseline: name of the method it replaces; "none" for a step that is added.
        curve: the mitigated sweep.
        against: the baseline sweep; None if the baselines make no sweep.
        matches: (level, mitigated variant, baseline variant) at every level that both have.
    """

    mitigation: str
    baseline: str
    curve: Curve
    against: Curve | None
    matches: tuple[tuple[float, str, str], ...]


def pairs(found: list[Curve], study: dict[str, Any], known: dict[tuple[str, str], set[str]]) -> list[Pair]:
    """Return every comparison of a curve that holds a mitigation.

    Args:
        found: curves of all models, single levels included.
        study: the grid.
        known: (model, protocol) -> measured variants.
    """
    result = []
    for curve in found:
        recipe = study["recipes"][curve.variants[-1]]
        for place, step in enumerate(recipe):
            repairs = study["repairs"].get(step["method"], [])
            measured = known[curve.model, curve.protocol]
            if EVERY in repairs and place != walked(curve.sweep):
                result.extend(_added(curve, place, found, study, measured))
            for method in repairs:
                result.extend(_replaced(curve, place, method, found, study))
    return result


def _added(curve: Curve, place: int, found: list[Curve], study: dict[str, Any], known: set[str]) -> list[Pair]:
    """The comparison with the same variants without the step at ``place``."""
    matches = []
    for level, slug in _own(curve):
        recipe = study["recipes"][slug]
        baseline = same_steps(recipe[:place] + recipe[place + 1 :], study, known)
        if baseline:
            matches.append((level, slug, baseline))
    if not matches:
        return []
    against = _sweep_of([baseline for _, _, baseline in matches], curve, found)
    method = study["recipes"][curve.variants[-1]][place]["method"]
    return [Pair(method, "none", curve, against, tuple(matches))]


def _replaced(curve: Curve, place: int, method: str, found: list[Curve], study: dict[str, Any]) -> list[Pair]:
    """The comparisons with the sweeps that have ``method`` at ``place``, those that agree in most settings."""
    scored = []
    for other in found:
        if (other.model, other.protocol) != (curve.model, curve.protocol) or walked(other.sweep) != walked(curve.sweep):
            continue
        matches, agreement = [], 0
        for level, slug in _own(curve):
            for candidate_level, candidate in _own(other):
                shared = _agreement(study["recipes"][slug], study["recipes"][candidate], place, method, study)
                if level == candidate_level and shared is not None:
                    matches.append((level, slug, candidate))
                    agreement = shared
        if matches:
            scored.append(
                (
                    agreement,
                    Pair(study["recipes"][curve.variants[-1]][place]["method"], method, curve, other, tuple(matches)),
                )
            )
    best = max((agreement for agreement, _ in scored), default=0)
    return [pair for agreement, pair in scored if agreement == best]


def _agreement(mitigated: list, baseline: list, place: int, method: str, study: dict[str, Any]) -> int | None:
    """Number of equal settings that both methods have; None if the recipes are no pair."""
    if len(mitigated) != len(baseline) or baseline[place]["method"] != method:
        return None
    if mitigated[:place] + mitigated[place + 1 :] != baseline[:place] + baseline[place + 1 :]:
        return None
    ours, theirs = mitigated[place], baseline[place]
    axes = [study["axes"].get(step["method"]) for step in (ours, theirs)]
    levels = [
        step["settings"].get(axis["setting"]) if axis else None for step, axis in zip((ours, theirs), axes, strict=True)
    ]
    if levels[0] != levels[1]:
        return None
    return sum(
        theirs["settings"].get(key, None) == value
        for key, value in ours["settings"].items()
        if key in theirs["settings"]
    )


def _own(curve: Curve) -> list[tuple[float, str]]:
    """The measured levels of a curve, without the harmless end that was added to it."""
    return list(zip(curve.levels.tolist(), curve.variants, strict=True))[int(curve.anchored) :]


def _sweep_of(slugs: list[str], curve: Curve, found: list[Curve]) -> Curve | None:
    """The sweep of the same axis that holds all these variants."""
    for other in found:
        same = (other.model, other.protocol, other.method) == (curve.model, curve.protocol, curve.method)
        if same and other.sweep != curve.sweep and set(slugs) <= set(other.variants):
            return other
    return None
