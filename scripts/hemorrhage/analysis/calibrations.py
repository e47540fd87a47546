"""What the calibration text does: variants that differ in nothing but their calibration set."""

from __future__ import annotations

import json
from dataclasses import dataclass

from hemorrhage.analysis.orderings import Measured

FACTS = ("text", "windows", "window", "joining")
Line = tuple[bool, str, str, int]  # far, text, joining, window: in the order in which lines are drawn


@dataclass(frozen=True)
class Point:
    """One variant of a group.

    Attributes:
        group: what its members share, in words.
        text: name of the calibration text.
        near: True if evaluation windows are cut from the same text (other articles of it).
        joining: how articles become sequences: "article" or "contiguous".
        window: length of a sequence in tokens.
        sequences: how many.
        slug: the variant.
    """

    group: str
    text: str
    near: bool
    joining: str
    window: int
    sequences: int
    slug: str

    @property
    def line(self) -> Line:
        """What it shares with the sets that differ from it in nothing but the number of sequences."""
        return not self.near, self.text, self.joining, self.window


def points(measured: Measured) -> list[Point]:
    """Return the variants of every group of at least two calibration sets, by group, line and number of sequences."""
    sets, evaluation = measured.study["calibrations"], measured.study["evaluation_text"]
    groups: dict[str, list[str]] = {}
    for slug, step in measured.singles.items():
        if step["settings"].get("calibration") in sets:
            shared = {key: value for key, value in step["settings"].items() if key != "calibration"}
            groups.setdefault(json.dumps([step["method"], shared], sort_keys=True, default=str), []).append(slug)
    found = []
    for slugs in groups.values():
        names = [str(measured.singles[slug]["settings"]["calibration"]) for slug in slugs]
        if len({tuple(sets[name][fact] for fact in FACTS) for name in names}) < 2:
            continue
        name = measured.name(min(slugs, key=len)).replace(
            f" · calibration {names[slugs.index(min(slugs, key=len))]}", ""
        )
        for slug, own in zip(slugs, names, strict=True):
            facts = sets[own]
            near = facts["text"] == evaluation
            found.append(Point(name, facts["text"], near, facts["joining"], facts["window"], facts["windows"], slug))
    return sorted(found, key=lambda point: (point.group, point.line, point.sequences, point.slug))


def near_and_far(measured: Measured) -> list[tuple[str, str]]:
    """Return (calibrated on the evaluation's text, on another one) of sets that are cut alike and equally large."""
    found = points(measured)
    near = {_but_for_the_text(point): point.slug for point in found if point.near}
    pairs = ((near.get(_but_for_the_text(point)), point.slug) for point in found if not point.near)
    return [(own, other) for own, other in pairs if own is not None]


def _but_for_the_text(point: Point) -> tuple[str, str, int, int]:
    return point.group, point.joining, point.window, point.sequences
