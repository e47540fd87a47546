"""The statements that compare two slopes of one sweep: the cliff of pruning (A3), and that of quantization (A5).

Both ask whether a weighted sum of the ΔNLL of three levels is above 0, over the same windows. A difference of slopes
has an interval where their quotient has none: the slope before a cliff may be 0.
"""

from __future__ import annotations

import math

import numpy as np

from hemorrhage.analysis import statistics
from hemorrhage.analysis.curves import Curve
from hemorrhage.analysis.orderings import FAILS, HOLDS, OPEN, Measured, Tally

METRIC = "delta_nll"
WEIGHTS, SPARSITY = "bits per weight", "share of weights"
CLIFF = 5.0  # times the slope just before
SMOOTH = 4  # a power law up to this exponent has no cliff; between levels far apart even that rises fivefold
FEWEST_LEVELS = 4


def cliffs(measured: Measured) -> Tally:
    """The slope of ΔNLL up to the level at which perplexity has doubled, against that between the two levels before.

    It holds if the whole interval of the difference of slopes is beyond ``CLIFF`` times, and beyond what s⁴ rises
    between the same levels; it fails if the whole interval is below ``CLIFF`` times. What became infinite is undecided.
    """
    tally = Tally()
    for curve in measured.curves:
        if curve.axis["unit"] != SPARSITY or "+" in curve.sweep or not curve.anchored:
            continue
        nats = curve.values(measured.metrics, METRIC).value.to_numpy()
        place = next((i for i, loss in enumerate(nats) if not loss <= math.log(2)), 0)
        if place < 2 or len(nats) < FEWEST_LEVELS:
            continue
        levels = curve.levels[place - 2 : place + 1]
        before, across = np.diff(nats[place - 2 : place + 1]) / np.diff(levels)
        text = f"{measured.name(curve.sweep)} {before:.3g}, then {across:.3g} nats per unit at {levels[-1]:g}"
        tally.add(_cliff(measured, curve, place), text)
    return tally


def two_bits(measured: Measured) -> Tally:
    """What is lost from 3 to 2 bits less what is lost from 4 to 3, by its interval over windows, of every quantizer."""
    tally = Tally()
    for curve in measured.curves:
        slugs = dict(zip(curve.levels.tolist(), curve.variants, strict=True))
        if curve.axis["unit"] != WEIGHTS or "+" in curve.sweep or not {4.0, 3.0, 2.0} <= set(slugs):
            continue
        four, three, two = (slugs[bits] for bits in (4.0, 3.0, 2.0))
        found = measured.contrast({two: 1.0, three: -2.0, four: 1.0}, METRIC)
        nats = [measured.value(slug, METRIC)["value"] for slug in (four, three, two)]
        text = f"{measured.name(curve.sweep)}: {nats[0]:.3g}, {nats[1]:.3g}, {nats[2]:.3g} nats at 4, 3, 2 bits"
        tally.add(above_zero(found), text)
    return tally


def above_zero(found: statistics.Estimate) -> str:
    """Return HOLDS if the whole interval is above 0, FAILS if it is below, else OPEN; so is what has no interval."""
    return HOLDS if found.low > 0 else FAILS if found.high < 0 else OPEN


def _cliff(measured: Measured, curve: Curve, place: int) -> str:
    """The verdict on the three levels that end at ``place``."""
    start, middle, end = curve.levels[place - 2 : place + 1]
    slugs = curve.variants[place - 2 : place + 1]

    def beyond(times: float) -> str:
        """Whether the slope to the end is this many times the slope before."""
        across, before = 1 / (end - middle), times / (middle - start)
        weights = dict(zip(slugs, (before, -before - across, across), strict=True))
        return above_zero(measured.contrast(weights, METRIC))

    smooth = (end**SMOOTH - middle**SMOOTH) / (end - middle) * (middle - start) / (middle**SMOOTH - start**SMOOTH)
    if beyond(max(CLIFF, smooth)) == HOLDS:
        return HOLDS
    return FAILS if beyond(CLIFF) == FAILS else OPEN
