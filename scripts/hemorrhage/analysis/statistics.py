"""Means over windows with honest intervals: bootstrap-t over windows, Student's t where that cannot be had.

Tokens of one text are correlated, so the window (one article each) is the unit of resampling, never the token. With
the 16 windows of the default study a percentile bootstrap covers too little (0.81-0.87 at 8 blocks); the studentised
bootstrap corrects for the few blocks and for skew. Every variant of a model is resampled with the same index matrix,
seeded by names, so that differences between variants are paired and every run gives the same bytes.

Only numpy is used.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from functools import cache

import numpy as np

RESAMPLES = 2000
CONFIDENCE = 0.95
FEWEST = 6  # below this many blocks the studentised resamples are too discrete; Student's t is used


@dataclass(frozen=True)
class Estimate:
    """A value with its uncertainty.

    Attributes:
        value: the estimate; ``inf`` if any window is not finite.
        se: standard error; nan if unknown.
        low: lower end of the 95 % interval; nan if unknown.
        high: upper end of the 95 % interval; nan if unknown.
        n: number of scored tokens (or items).
        blocks: number of resampled windows (or prompts, items).
    """

    value: float
    se: float
    low: float
    high: float
    n: int
    blocks: int


def index_matrix(model: str, token_set: str, blocks: int, resamples: int = RESAMPLES) -> np.ndarray:
    """Return the resampling indices [resamples, blocks] shared by all variants of a model on a token set."""
    digest = hashlib.blake2b(f"{model}\n{token_set}\n{blocks}".encode(), digest_size=8).digest()
    generator = np.random.default_rng(int.from_bytes(digest, "little"))
    return generator.integers(0, blocks, size=(resamples, blocks), dtype=np.int32)


def mean_interval(
    sums: np.ndarray,
    counts: np.ndarray,
    index: np.ndarray | None = None,
    bounds: tuple[float, float] = (-math.inf, math.inf),
    bernoulli: bool = False,
) -> Estimate:
    """Return the mean Σ sums / Σ counts and its 95 % interval.

    The standard error is that of a ratio (windows may hold different numbers of tokens). The interval is bootstrap-t
    if ``index`` is given and the resamples allow it, else Student's t with B-1 degrees of freedom. Data without any
    spread (``identity``) give se 0 and an interval of exactly the value.

    Args:
        sums: [B] sum of the metric over the scored tokens of each window.
        counts: [B] number of scored tokens of each window.
        index: [R, B] from ``index_matrix``.
        bounds: what the metric can be at all; the interval is cut there (0 to 1 for an agreement).
        bernoulli: True for a share of drawn items, or a change of one: that all items agree is then no proof, and the
            interval is the exact one, see ``unseen_share``, its standard error unknown. ``bounds`` must be finite.
    """
    sums, counts = np.asarray(sums, dtype=np.float64), np.asarray(counts, dtype=np.float64)
    used = counts > 0
    sums, counts, dropped = sums[used], counts[used], not used.all()
    n, blocks = int(counts.sum()), int(used.sum())
    if blocks == 0:
        return Estimate(math.nan, math.nan, math.nan, math.nan, 0, 0)
    if not np.isfinite(sums).all():
        return Estimate(math.inf, math.nan, math.nan, math.nan, n, blocks)
    value, se = (float(part) for part in _ratio(sums, counts))
    if blocks == 1:
        return Estimate(value, math.nan, math.nan, math.nan, n, 1)
    if _spread_free(sums, counts):
        if not bernoulli:
            return Estimate(value, 0.0, value, value, n, blocks)
        unseen = unseen_share(blocks)
        low, high = (value + unseen * (end - value) for end in bounds)
        return Estimate(value, math.nan, low, high, n, blocks)
    lower, upper = _pivots(sums, counts, None if dropped else index, value)
    low, high = (min(max(value + pivot * se, bounds[0]), bounds[1]) for pivot in (lower, upper))
    return Estimate(value, se, low, high, n, blocks)


def unseen_share(n: int) -> float:
    """Return the largest share of a kind of item of which ``n`` draws held none: 1 - 0.025^(1/n).

    It is the upper end of the 95 % interval of Clopper and Pearson ("The use of confidence or fiducial limits
    illustrated in the case of the binomial", Biometrika 26, 1934) at 0 of n; the lower one at n of n is 1 minus it.
    """
    return float(1 - ((1 - CONFIDENCE) / 2) ** (1 / n))


def paired_difference(
    sums: np.ndarray, baseline: np.ndarray, counts: np.ndarray, index: np.ndarray | None = None
) -> Estimate:
    """Return the mean of ``sums - baseline`` over the same windows [B]; non-finite on either side gives an open end.

    A variant that is infinite where its baseline is finite gives +inf, the reverse -inf, both infinite nan.
    """
    broken, broken_baseline = not np.isfinite(sums).all(), not np.isfinite(baseline).all()
    if broken or broken_baseline:
        value = math.nan if broken and broken_baseline else math.inf if broken else -math.inf
        return Estimate(value, math.nan, math.nan, math.nan, int(np.sum(counts)), len(counts))
    return mean_interval(np.asarray(sums) - np.asarray(baseline), counts, index)


def paired_unpaired_ratio(paired: float, one: float, other: float) -> float:
    """Return the standard error of a paired difference over that of two independent means with errors one and other.

    nan if an error is unknown or both means are exact.
    """
    unpaired = math.hypot(one, other)
    return paired / unpaired if unpaired > 0 else math.nan


def exponential(estimate: Estimate) -> Estimate:
    """Return exp of an estimate: perplexity from NLL, perplexity ratio from ΔNLL; interval ends are transformed."""
    value, low, high = (_exp(part) for part in (estimate.value, estimate.low, estimate.high))
    return Estimate(value, value * estimate.se, low, high, estimate.n, estimate.blocks)


def jackknife_interval(value: float, deleted: np.ndarray) -> tuple[float, float, float]:
    """Return (se, low, high) of a statistic from its delete-one-window values [B]; t with B-1 degrees of freedom.

    Any non-finite delete-one value makes all three nan: the statistic hangs on a single window.
    """
    deleted = np.asarray(deleted, dtype=np.float64)
    blocks = len(deleted)
    if blocks < 2 or not np.isfinite(deleted).all() or not math.isfinite(value):
        return math.nan, math.nan, math.nan
    se = math.sqrt((blocks - 1) / blocks * float(((deleted - deleted.mean()) ** 2).sum()))
    half = t_quantile((1 + CONFIDENCE) / 2, blocks - 1) * se
    return se, value - half, value + half


@cache
def t_quantile(p: float, dof: int) -> float:
    """Return the quantile of Student's t for p in [0.5, 1) and a whole number of degrees of freedom."""
    low, high = 0.0, 1e4
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if _t_cdf(middle, dof) < p else (low, middle)
    return (low + high) / 2


def _t_cdf(t: float, dof: int) -> float:
    """Student's t for t >= 0 as the finite series of Abramowitz and Stegun 26.7.3-26.7.4."""
    angle = math.atan(t / math.sqrt(dof))
    cosine, odd = math.cos(angle), dof % 2
    term, total = (cosine, cosine) if odd else (1.0, 1.0)
    for k in range(2, dof - 1, 2):
        term *= cosine * cosine * (k / (k + 1) if odd else (k - 1) / k)
        total += term
    if not odd:
        return 0.5 + math.sin(angle) * total / 2
    return 0.5 + (angle + (math.sin(angle) * total if dof > 1 else 0.0)) / math.pi


def _ratio(sums: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ratio of sums and its standard error over the last axis."""
    blocks, total = sums.shape[-1], counts.sum(-1)
    value = sums.sum(-1) / total
    residual = sums - value[..., None] * counts
    se = np.sqrt(blocks / max(blocks - 1, 1) * (residual**2).sum(-1)) / total
    return value, se


def _spread_free(sums: np.ndarray, counts: np.ndarray) -> bool:
    """True if every window has exactly the same mean; rounding of the total must not invent a spread."""
    means = sums / counts
    return bool((means == means[0]).all())


def _pivots(sums: np.ndarray, counts: np.ndarray, index: np.ndarray | None, value: float) -> tuple[float, float]:
    """Ends of the interval in standard errors from the value: bootstrap-t, or Student's t as the fallback."""
    blocks = len(sums)
    student = t_quantile((1 + CONFIDENCE) / 2, blocks - 1)
    if index is None or blocks < FEWEST or index.shape[1] != blocks:
        return -student, student
    resampled, se = _ratio(sums[index], counts[index])
    usable = se > 1e-9 * float(np.abs(sums / counts - value).max())
    if usable.mean() < 0.99:  # a few windows carry everything: many resamples have no spread of their own
        return -student, student
    pivots = (resampled[usable] - value) / se[usable]
    tail = (1 - CONFIDENCE) / 2
    return -float(np.quantile(pivots, 1 - tail)), -float(np.quantile(pivots, tail))


def _exp(x: float) -> float:
    return math.exp(x) if x < 700 else math.inf if not math.isnan(x) else math.nan
