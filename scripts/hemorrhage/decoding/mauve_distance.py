"""How far two sets of texts are apart as distributions: 1 − MAUVE, through the package mauve-text.

MAUVE clusters the features of both sets and takes the area under the curve of the divergences between the two
histograms; 1 is two sets that cannot be told apart. The features are the reference's last hidden states, so nothing is
fetched. It was made for thousands of texts. Two sets of 16 random vectors of one distribution are 0.25 apart, with an
interval over prompts of 0 to 0.95, two of 128 still 0.04, 0 to 0.27: below ``FEWEST`` texts a side nothing is said.
mauve-text is under the GPL, so it is not among the requirements; where it is not installed nothing is said either.

Pillutla et al., MAUVE: Measuring the Gap Between Neural Text and Human Text using Divergence Frontiers, 2021
(arXiv 2102.01454).
"""

from __future__ import annotations

import importlib.util

import numpy as np

from hemorrhage.analysis.statistics import Estimate, jackknife_interval

FEWEST = 64  # texts on each side
PACKAGE = "mauve"
SEED = 1  # of the clusters


def estimate(a: np.ndarray, b: np.ndarray) -> Estimate | None:
    """Return the distance of two sets of texts with its interval over prompts.

    None if they are too few or mauve-text is not installed. The interval leaves out one prompt at a time.

    Args:
        a: [prompts, seeds, d] features of the texts of one side; nan for an empty text, which is left out.
        b: the same prompts on the other side; the number of seeds may differ.
    """
    prompts = len(a)
    if min(_texts(a), _texts(b)) < FEWEST or importlib.util.find_spec(PACKAGE) is None:
        return None
    value = distance(a, b)
    deleted = np.array([distance(np.delete(a, i, axis=0), np.delete(b, i, axis=0)) for i in range(prompts)])
    se, low, high = jackknife_interval(value, deleted)
    return Estimate(value, se, max(low, 0.0), min(high, 1.0), _texts(a), prompts)


def distance(a: np.ndarray, b: np.ndarray) -> float:
    """Return 1 − MAUVE of two sets of features [..., d]; exactly 0 for equal sets."""
    if a.shape == b.shape and np.array_equal(a, b, equal_nan=True):
        return 0.0
    import mauve

    first, second = (side.reshape(-1, side.shape[-1]) for side in (a, b))
    found = mauve.compute_mauve(
        p_features=first[np.isfinite(first).all(-1)].astype(np.float32),
        q_features=second[np.isfinite(second).all(-1)].astype(np.float32),
        seed=SEED,
        verbose=False,
    )
    return 1.0 - float(found.mauve)


def _texts(features: np.ndarray) -> int:
    return int(np.isfinite(features).all(-1).sum())
