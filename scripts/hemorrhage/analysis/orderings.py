"""Whether one variant does less damage than another, on the same windows: what qualitative statements are made of."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from hemorrhage.analysis import curves, cuts, statistics, tables

HOLDS, FAILS, OPEN = "holds", "fails", "undecided"
Arm = tuple[str, frozenset[tuple[str, str]]]  # a method, and settings with their values as text


@dataclass
class Tally:
    """The comparisons of one statement, each in words.

    Attributes:
        held: those that were shown.
        failed: those that were shown to be the other way.
        undecided: those that the windows do not tell.
        remark: what the counts do not say; empty if they say all.
    """

    held: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    undecided: list[str] = field(default_factory=list)
    remark: str = ""

    @property
    def total(self) -> int:
        """How many comparisons there were."""
        return len(self.held) + len(self.failed) + len(self.undecided)

    @property
    def verdict(self) -> str:
        """Fails if one comparison does, holds if all do."""
        return FAILS if self.failed else OPEN if self.undecided else HOLDS

    @property
    def against(self) -> str:
        """The comparisons that did not hold, after what is to be said of all."""
        return "; ".join([*([self.remark] if self.remark else []), *self.failed, *self.undecided])

    def add(self, verdict: str, text: str) -> None:
        """Count one comparison."""
        {HOLDS: self.held, FAILS: self.failed, OPEN: self.undecided}[verdict].append(text)


@dataclass(frozen=True)
class Measured:
    """What was measured of one model.

    Attributes:
        model: its name.
        metrics: metrics.tsv, the rows of this model.
        windows: (model, variant, metric) -> sums [B], counts [B].
        study: the grid.
        cuts: (model, variant) -> share of the weights that is gone; of variants that are not there nothing is known.
    """

    model: str
    metrics: pd.DataFrame
    windows: Mapping[tuple[str, str, str], tuple[np.ndarray, np.ndarray]]
    study: Mapping[str, Any]
    cuts: Mapping[tuple[str, str], float] = field(default_factory=dict)

    @cached_property
    def singles(self) -> dict[str, Mapping[str, Any]]:
        """The measured variants of one step: slug -> the step (method, settings)."""
        recipes = self.study["recipes"].items()
        return {slug: recipe[0] for slug, recipe in recipes if len(recipe) == 1 and self.has(slug)}

    @cached_property
    def curves(self) -> list[curves.Curve]:
        """Every sweep with two levels or more."""
        return curves.curves(self.metrics, dict(self.study))

    @cached_property
    def _fidelity(self) -> dict[tuple[str, str], Mapping[str, Any]]:
        rows = self.metrics[self.metrics.probe == curves.PROBE].drop_duplicates(["variant", "metric"])
        return {(row["variant"], row["metric"]): row for row in tables.dicts(rows)}

    def has(self, slug: str) -> bool:
        """Whether the damage of a variant was measured."""
        return (self.model, slug, "kl") in self.windows

    def value(self, slug: str, metric: str = "kl") -> Mapping[str, Any]:
        """Return value, low and high of a metric of a variant."""
        return self._fidelity[slug, metric]

    def name(self, slug: str) -> str:
        """How people call a variant."""
        return curves.label(slug, dict(self.study))

    def level(self, slug: str) -> float | None:
        """Return the level of a variant of one step on its axis; None without one."""
        step = self.singles[slug]
        axis = self.study["axes"].get(step["method"])
        level = step["settings"].get(axis["setting"]) if axis else None
        return float(level) if isinstance(level, int | float) else None

    def by_pattern(self) -> dict[str, dict[str, str]]:
        """Return arm -> pattern -> slug of every plain pruner; "None" is half of the weights, anywhere.

        An arm is named by its method, and by the settings in which it differs from other arms of that method.
        """
        found: dict[Arm, dict[str, str]] = {}
        for slug, step in self.singles.items():
            settings = step["settings"]
            if is_plain(step) and "pattern" in settings and (settings["pattern"] or settings["sparsity"] == 0.5):
                found.setdefault(arm(step, ("pattern", "sparsity")), {})[str(settings["pattern"])] = slug
        return dict(zip(_names(list(found)), found.values(), strict=True))

    def difference(self, less: str, more: str, metric: str = "kl") -> statistics.Estimate:
        """Return the paired difference ``less`` − ``more`` of a metric, nats a token."""
        sums, counts = self.windows[self.model, less, metric]
        baseline, _ = self.windows[self.model, more, metric]
        return statistics.paired_difference(
            sums, baseline, counts, statistics.index_matrix(self.model, "evaluation", len(counts))
        )

    def contrast(self, weights: Mapping[str, float], metric: str = "kl") -> statistics.Estimate:
        """Return the weighted sum of a metric of several variants over the same windows, in nats a token.

        Args:
            weights: slug -> its weight.
            metric: which; where one window is not finite the value is nan and has no interval.
        """
        sums = np.array([self.windows[self.model, slug, metric][0] for slug in weights])  # [V, B]
        counts = self.windows[self.model, next(iter(weights)), metric][1]
        if not np.isfinite(sums).all():
            return statistics.Estimate(math.nan, math.nan, math.nan, math.nan, int(counts.sum()), len(counts))
        index = statistics.index_matrix(self.model, "evaluation", len(counts))
        return statistics.mean_interval(np.array(list(weights.values())) @ sums, counts, index)

    def best(self, slugs: Iterable[str]) -> str:
        """Return the variant of least KL."""
        return min(slugs, key=lambda slug: (self.value(slug)["value"], slug))

    def ordered(self, chains: Iterable[Sequence[str]]) -> Tally:
        """Compare the neighbours of every chain of variants, in which damage should grow from left to right."""
        tally = Tally()
        for chain in chains:
            for less, more in itertools.pairwise(chain):
                kl = [self.value(slug)["value"] for slug in (less, more)]
                text = f"{self.name(less)} {_short(kl[0])} < {self.name(more)} {_short(kl[1])}"
                tally.add(less_damage(self.difference(less, more)), text)
        return tally


def of_models(
    metrics_path: str, windows_path: str, study: Mapping[str, Any], cuts_path: str | None = None
) -> list[Measured]:
    """Return what was measured of every model, from metrics.tsv, windows.parquet, the grid and, if given, cuts.tsv."""
    metrics, windows = tables.read(metrics_path), tables.read_windows(windows_path)
    gone = cuts.read(cuts_path) if cuts_path else {}
    return [Measured(str(model), group, windows, study, gone) for model, group in tables.groups(metrics, "model")]


def is_plain(step: Mapping[str, Any]) -> bool:
    """Whether a step is calibrated as usual and prunes every block alike."""
    settings = step["settings"]
    return settings.get("calibration", "default") == "default" and settings.get("allocation", "uniform") == "uniform"


def arm(step: Mapping[str, Any], apart_from: Sequence[str]) -> Arm:
    """Return the method of a step and its settings but for some: what the variants of one arm share."""
    return step["method"], frozenset((k, str(v)) for k, v in step["settings"].items() if k not in apart_from)


def less_damage(found: statistics.Estimate) -> str:
    """Return HOLDS if a difference shows less damage, FAILS if it shows more, else OPEN; an infinite one shows it."""
    if math.isnan(found.value):
        return OPEN  # both are infinite
    low, high = (found.value, found.value) if math.isinf(found.value) else (found.low, found.high)
    if high < 0:
        return HOLDS
    return FAILS if low > 0 else OPEN


def _names(arms: Sequence[Arm]) -> list[str]:
    """Each arm's method, with the settings that not all arms of the method have."""
    shared = {method: frozenset.intersection(*(own for name, own in arms if name == method)) for method, _ in arms}
    return [
        " · ".join([method, *(f"{key} {value}" for key, value in sorted(settings - shared[method]))])
        for method, settings in arms
    ]


def _short(value: float) -> str:
    return f"{value:.3g}"
