"""Damage curves: the variants of one sweep in order from the harmless end outwards, read from the metrics table."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from hemorrhage.analysis import tables

REFERENCE = "identity"
PROBE = "fidelity"
EVERY = "*"  # in REPAIRS: a step that can be added to any variant


@dataclass(frozen=True)
class Curve:
    """One sweep of one model under one protocol.

    Attributes:
        model: name of the model.
        sweep: name of the sweep, with ``*`` for the level.
        arm: what stays the same along it.
        family: family of its variants.
        method: the method whose axis is walked.
        axis: facts of that axis: setting, harmless, rises, integer, unit.
        protocol: slug of the protocol.
        levels: [L] places on the axis, from the harmless end outwards.
        variants: [L] slug of the variant at each level.
        anchored: True if the first level is the harmless end, measured as a variant without the step.
    """

    model: str
    sweep: str
    arm: str
    family: str
    method: str
    axis: dict[str, Any]
    protocol: str
    levels: np.ndarray
    variants: tuple[str, ...]
    anchored: bool

    @property
    def positions(self) -> np.ndarray:
        """The levels with a sign that lets damage grow with the position."""
        return self.levels if self.axis["rises"] else -self.levels

    def values(self, metrics: pd.DataFrame, metric: str, probe: str = PROBE) -> pd.DataFrame:
        """Return value, se, low, high, blocks [L] of a metric along the curve; raises KeyError if one is missing."""
        rows = self._rows(metrics, metric, probe)
        return rows.loc[list(self.variants), ["value", "se", "low", "high", "blocks"]].reset_index(drop=True)

    def reference(self, metrics: pd.DataFrame, metric: str, probe: str = PROBE) -> float:
        """Return the unmodified model's value of a metric; nan if it was not measured."""
        rows = self._rows(metrics, metric, probe)
        return float(rows.value[REFERENCE]) if REFERENCE in rows.index else math.nan

    def measured(self, metrics: pd.DataFrame, metric: str, probe: str = PROBE) -> Curve:
        """Return the curve of the levels at which a probe measured a metric; probes may skip variants."""
        known = self._rows(metrics, metric, probe).index
        kept = [place for place, slug in enumerate(self.variants) if slug in known]
        return dataclasses.replace(
            self,
            levels=self.levels[kept],
            variants=tuple(self.variants[i] for i in kept),
            anchored=self.anchored and 0 in kept,
        )

    def _rows(self, metrics: pd.DataFrame, metric: str, probe: str) -> pd.DataFrame:
        """The rows of a metric by variant. A probe with a single protocol of its own, like tasks, fits every curve."""
        rows = metrics[(metrics.model == self.model) & (metrics.metric == metric) & (metrics.probe == probe)]
        if probe == PROBE or rows.protocol.nunique() > 1:
            rows = rows[rows.protocol == self.protocol]
        return rows.drop_duplicates("variant").set_index("variant")


def curves(metrics: pd.DataFrame, study: dict[str, Any], fewest: int = 2) -> list[Curve]:
    """Return every sweep with at least ``fewest`` measured levels, sorted by model and sweep.

    Rows of different protocols never meet in one curve. The harmless end of the axis is added as a level of its own
    when the same steps without the walked one were measured.
    """
    rows = metrics[(metrics.probe == PROBE) & (metrics.sweep != "")]
    result = []
    for (model, sweep, protocol), group in tables.groups(rows, ["model", "sweep", "protocol"], sort=True):
        places = group.drop_duplicates("variant")
        curve = _curve(model, sweep, protocol, places, study, _measured(metrics, model, protocol))
        if curve is not None and len(curve.levels) - curve.anchored >= fewest:
            result.append(curve)
    return result


def probe_of(criterion: Mapping[str, Any], metrics: pd.DataFrame) -> str:
    """Return the probe whose metric a criterion is on: the one it names, fidelity, or the first that has the metric."""
    found = set(metrics[metrics.metric == criterion["metric"]].probe)
    return criterion.get("probe") or (PROBE if PROBE in found or not found else min(found))


def rises(criterion: Mapping[str, Any]) -> bool:
    """Return whether larger values of a criterion's metric are more damage; a share of the reference's score is not."""
    return not criterion.get("higher_is_better", float(criterion.get("relative", 1)) < 1)


def walked(sweep: str) -> int:
    """Return the place of the step whose axis a sweep walks."""
    return next(place for place, part in enumerate(sweep.split("+")) if "~*" in part)


def same_steps(recipe: list[dict[str, Any]], study: dict[str, Any], known: set[str]) -> str | None:
    """Return the measured variant that has exactly these steps; no steps at all are the reference."""
    if not recipe:
        return REFERENCE if REFERENCE in known else None
    return next((slug for slug, steps in sorted(study["recipes"].items()) if steps == recipe and slug in known), None)


def label(name: str, study: dict[str, Any]) -> str:
    """Return a sweep's or variant's name for people: ``wanda_sparsity~*_n~2`` becomes ``wanda · n 2``."""
    return " + ".join(_step_label(step, study) for step in name.split("+"))


def _step_label(step: str, study: dict[str, Any]) -> str:
    """One step's name; methods and settings may hold underscores themselves, so known methods are tried first."""
    method = max(
        (known for known in study["repairs"] if step == known or step.startswith(known + "_")),
        key=len,
        default=step.partition("~")[0],
    )
    words = [method.replace("_", " ")]
    key, *pieces = step[len(method) :].lstrip("_").split("~")
    for place, piece in enumerate(pieces):
        value, _, following = piece.partition("_") if place < len(pieces) - 1 else (piece, "", "")
        if value != "*":
            words.append(f"{key.replace('_', ' ')} {value}")
        key = following
    return " · ".join(words)


def _measured(metrics: pd.DataFrame, model: str, protocol: str) -> set[str]:
    rows = metrics[(metrics.model == model) & (metrics.protocol == protocol) & (metrics.probe == PROBE)]
    return set(rows.variant)


def _curve(model, sweep, protocol, places: pd.DataFrame, study: dict[str, Any], known: set[str]) -> Curve | None:
    """Order one sweep's variants and add the harmless end; None if no level is a number."""
    numbers = pd.to_numeric(places.level, errors="coerce")
    places = places.assign(level=numbers)[numbers.notna()]
    if places.empty:
        return None
    first = places.iloc[0]
    method = first.method.split("+")[walked(sweep)]
    axis = study["axes"][method]
    places = places.sort_values("level", ascending=axis["rises"])
    levels, slugs = places.level.to_numpy(dtype=float), list(places.variant)
    end = _harmless_end(sweep, slugs[0], study, known)
    anchored = axis["harmless"] is not None and end is not None and float(axis["harmless"]) not in levels
    if anchored:
        levels, slugs = np.concatenate([[float(axis["harmless"])], levels]), [str(end), *slugs]
    arm = "" if isinstance(first.arm, float) and math.isnan(first.arm) else str(first.arm)
    return Curve(model, sweep, arm, first.family, method, axis, protocol, levels, tuple(slugs), anchored)


def _harmless_end(sweep: str, slug: str, study: dict[str, Any], known: set[str]) -> str | None:
    """The measured variant that a sweep reaches when its step does nothing.

    What remains may be only steps that say of themselves that they leave the unmodified reference as it is; it is the
    reference then, also if it was not measured itself. A step that changes the reference, as a fine-tune does, has no
    such end unless it was measured alone.
    """
    recipe = list(study["recipes"][slug])
    del recipe[walked(sweep)]
    found = same_steps(recipe, study, known)
    if found is None and all(step["method"] in study["leaves_reference"] for step in recipe):
        return REFERENCE if REFERENCE in known else None
    return found
