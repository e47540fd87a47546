"""What the calibration text does: variants that differ in nothing but their calibration set."""

from __future__ import annotations

import json
from dataclasses import dataclass

from hemorrhage.analysis.orderings import Measured


@dataclass(frozen=True)
class Point:
    """One variant of a group.

    Attributes:
        group: what its members share, in words.
        text: name of the calibration text.
        near: True if evaluation windows are cut from the same text (other articles of it).
        sequences: how many.
        slug: the variant.
    """

    group: str
    text: str
    near: bool
    sequences: int
    slug: str


def points(measured: Measured) -> list[Point]:
    """Return the variants of every group of at least two calibration sets, by group, text and number of sequences."""
    sets, evaluation = measured.study["calibrations"], measured.study["evaluation_text"]
    groups: dict[str, list[str]] = {}
    for slug, step in measured.singles.items():
        if step["settings"].get("calibration") in sets:
            shared = {key: value for key, value in step["settings"].items() if key != "calibration"}
            groups.setdefault(json.dumps([step["method"], shared], sort_keys=True, default=str), []).append(slug)
    found = []
    for slugs in groups.values():
        names = [str(measured.singles[slug]["settings"]["calibration"]) for slug in slugs]
        if len({(sets[name]["text"], sets[name]["windows"]) for name in names}) < 2:
            continue
        name = measured.name(min(slugs, key=len)).replace(
            f" · calibration {names[slugs.index(min(slugs, key=len))]}", ""
        )
        for slug, own in zip(slugs, names, strict=True):
            facts = sets[own]
            found.append(Point(name, facts["text"], facts["text"] == evaluation, facts["windows"], slug))
    return sorted(found, key=lambda point: (point.group, not point.near, point.text, point.sequences, point.slug))


def near_and_far(measured: Measured) -> list[tuple[str, str]]:
    """Return (calibrated on the evaluation's text, on another one) at equal numbers of sequences."""
    found = points(measured)
    near = {(point.group, point.sequences): point.slug for point in found if point.near}
    return [
        (near[point.group, point.sequences], point.slug)
        for point in found
        if not point.near and (point.group, point.sequences) in near
    ]
