"""From per-token comparisons to the metrics of the probe ``fidelity``: means, percentiles, shares, with intervals.

Only numpy is used. Window sums carry the intervals; percentiles get theirs from leaving out one window at a time.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import TYPE_CHECKING

import numpy as np

from hemorrhage.analysis.statistics import exponential, jackknife_interval, mean_interval
from hemorrhage.records import Measurement, Metric

if TYPE_CHECKING:
    from hemorrhage.corpus.tokens import TokenSet

NATS = "nats"
SHARE = "share"
PERCENTILES = {"p01": 0.01, "p05": 0.05, "p10": 0.1, "p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p999": 0.999}
CONFIDENCE_EDGES = (0.0, 0.25, 0.5, 0.75, 0.95, 1.0)  # of the reference's top probability
BOUNDED = (0.0, 1.0)
POSITIVE = (0.0, math.inf)
# metric: (unit, higher is better, what it can be at all)
MEANS: dict[str, tuple[str, bool | None, tuple[float, float]]] = {
    "nll": (NATS, False, POSITIVE),
    "delta_nll": (NATS, False, (-math.inf, math.inf)),
    "kl": (NATS, False, POSITIVE),
    "kl_reverse": (NATS, False, POSITIVE),
    "jensen_shannon": (NATS, False, (0.0, math.log(2))),
    "total_variation": (SHARE, False, BOUNDED),
    "expected_acceptance": (SHARE, True, BOUNDED),
    "top1_agreement": (SHARE, True, BOUNDED),
    "top5_overlap": (SHARE, True, BOUNDED),
    "delta_p_mean": (SHARE, None, (-1.0, 1.0)),
    "nonfinite_share": (SHARE, False, BOUNDED),
}
KEPT = (
    "nll",
    "delta_nll",
    "kl",
    "kl_reverse",
    "jensen_shannon",
    "total_variation",
    "top1_agreement",
    "top5_overlap",
    "delta_p",
    "confidence",
)


def summarise(values: dict[str, np.ndarray], tokens: TokenSet, index: np.ndarray) -> Measurement:
    """Return the metrics, window sums and token arrays.

    Args:
        values: [B, L] by the names of ``divergence.compare``, nan where nothing is scored.
        tokens: the windows.
        index: [R, B] resampling indices.
    """
    values = _derived(values)
    scored = tokens.scored
    windows = {name: _sums(values[name], scored) for name in MEANS}
    windows["count"] = scored.sum(1).astype(np.float64)
    means = {
        name: mean_interval(windows[name], windows["count"], index, bounds) for name, (_, _, bounds) in MEANS.items()
    }
    metrics = [Metric.of(name, means[name], unit, better) for name, (unit, better, _) in MEANS.items()]
    metrics += [
        Metric.of("perplexity", exponential(means["nll"])),
        Metric.of("perplexity_ratio", exponential(means["delta_nll"])),
        _bits_per_byte(windows["nll"], tokens.bytes, index),
        _finite_kl(values, scored, index),
        *_percentiles("kl", values["kl"], scored, NATS, False, {"max": 1.0}),
        *_percentiles("delta_p", values["delta_p"], scored, SHARE, None, {"min": 0.0, "max": 1.0}),
        _root_mean_square("delta_p_rms", values["delta_p"], scored, index),
        *_by_confidence(values, scored, index),
    ]
    return Measurement(metrics, windows, {name: values[name] for name in KEPT})


def _derived(values: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Add what follows from the compared values token by token."""
    return {
        **values,
        "delta_nll": values["nll"] - values["reference_nll"],
        "expected_acceptance": 1 - values["total_variation"],
        "delta_p_mean": values["delta_p"],
        "nonfinite_share": values["nonfinite"],
    }


def _sums(values: np.ndarray, where: np.ndarray) -> np.ndarray:
    """Sums [B] in float64 of the values at the positions ``where`` [B, L]."""
    return np.where(where, values, 0).sum(1, dtype=np.float64)


def _bits_per_byte(nll: np.ndarray, text_bytes: np.ndarray, index: np.ndarray) -> Metric:
    """The loss per byte of text, which does not depend on the tokenizer; n counts bytes."""
    return Metric.of("bits_per_byte", mean_interval(nll / math.log(2), text_bytes, index, POSITIVE), "bits/byte")


def _finite_kl(values: dict[str, np.ndarray], scored: np.ndarray, index: np.ndarray) -> Metric:
    """The mean KL over the positions where both sides are finite."""
    finite = scored & np.isfinite(values["kl"])
    return Metric.of("kl_finite", mean_interval(_sums(values["kl"], finite), finite.sum(1), index, POSITIVE), NATS)


def _percentiles(
    name: str, values: np.ndarray, scored: np.ndarray, unit: str, better: bool | None, ends: dict[str, float]
) -> list[Metric]:
    """Linearly interpolated percentiles over the scored tokens, as llama.cpp takes them; the ends have no interval."""
    shares = {**PERCENTILES, **ends}
    blocks = [row[where] for row, where in zip(values.astype(np.float64), scored, strict=True) if where.any()]
    pooled = _quantiles(np.concatenate(blocks), list(shares.values()))
    deleted = (
        np.array(
            [
                _quantiles(np.concatenate(blocks[:left] + blocks[left + 1 :]), list(shares.values()))
                for left in range(len(blocks))
            ]
        )
        if len(blocks) > 1
        else np.empty((0, len(shares)))
    )
    n = int(scored.sum())
    metrics = []
    for place, key in enumerate(shares):
        interval = (math.nan,) * 3 if key in ends else jackknife_interval(float(pooled[place]), deleted[:, place])
        if unit == NATS and interval[1] < 0:
            interval = (interval[0], 0.0, interval[2])
        metrics.append(Metric(f"{name}_{key}", float(pooled[place]), *interval, n, len(blocks), unit, better))
    return metrics


def _quantiles(values: np.ndarray, shares: list[float]) -> np.ndarray:
    """Linear interpolation between order statistics; next to an infinite one the result is infinite, not nan."""
    ordered = np.sort(values)
    place = np.array(shares) * (len(ordered) - 1)
    below = np.floor(place).astype(int)
    low, high = ordered[below], ordered[np.ceil(place).astype(int)]
    part = place - below
    step = np.where((part > 0) & (low != high), high - np.where(np.isinf(low), 0, low), 0)
    return np.where(part > 0, low + np.where(step == 0, 0, step * part), low)


def _root_mean_square(name: str, values: np.ndarray, scored: np.ndarray, index: np.ndarray) -> Metric:
    square = mean_interval(_sums(values.astype(np.float64) ** 2, scored), scored.sum(1), index, BOUNDED)
    root = math.sqrt(square.value)
    se = square.se / (2 * root) if root else square.se
    return Metric.of(
        name,
        dataclasses.replace(square, value=root, se=se, low=math.sqrt(square.low), high=math.sqrt(square.high)),
        SHARE,
    )


def _by_confidence(values: dict[str, np.ndarray], scored: np.ndarray, index: np.ndarray) -> list[Metric]:
    """Mean KL where the reference's top probability lies in each bucket; most of KL is at undecided tokens."""
    metrics = []
    # The last bucket holds 1 itself; rounding can put a probability a little above it.
    bucket = np.searchsorted(CONFIDENCE_EDGES[1:-1], values["confidence"], side="right")
    for place, (low, high) in enumerate(itertools.pairwise(CONFIDENCE_EDGES)):
        inside = scored & (bucket == place)
        estimate = mean_interval(_sums(values["kl"], inside), inside.sum(1), index, POSITIVE)
        metrics.append(Metric.of(f"kl_confidence_{100 * low:.0f}_{100 * high:.0f}", estimate, NATS))
    return metrics
