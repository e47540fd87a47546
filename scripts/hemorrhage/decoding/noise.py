"""Gumbel noise that depends on seed, prompt, step and token only: common random numbers for sampled text.

A token drawn as ``argmax(scores + gumbel)`` follows softmax(scores) (Gumbel-max). The noise of one prompt, step and
token is the same whatever the weights and wherever the prompt stands in a batch, so two texts differ because of what
differs between their scores, not because the dice fell differently. The bits come from a counter-based generator
(Philox; Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"), whose raw stream numpy never changes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

ROUNDING = 1e-5  # more than a sum in float32 can be off, relative


def gumbel(keys: Sequence[tuple[int, int]], step: int, vocabulary: int, stream: int = 0) -> np.ndarray:
    """Return standard Gumbel noise [rows, vocabulary], float32.

    Args:
        keys: (seed, prompt id) of every row; both are 0 or more.
        step: place of the new token in the continuation, from 0.
        vocabulary: number of token ids. A larger vocabulary leaves the noise of the first ids as it is.
        stream: 0, or another number for another draw at the same step, independent of the first.
    """
    noise = np.empty((len(keys), vocabulary), dtype=np.float32)
    for row, key in enumerate(keys):
        noise[row] = _of(_bits(key, step, vocabulary, stream))
    return noise


def draw(scores: np.ndarray, keys: Sequence[tuple[int, int]], step: int, stream: int = 0) -> np.ndarray:
    """Return ``argmax(scores + gumbel)`` of every row, [rows] int64: one token drawn from softmax(scores).

    The noise is that of ``gumbel``, but it is computed only for the tokens that can win: the largest noise of the row
    would not lift any other above the likeliest token.

    Args:
        scores: [rows, vocabulary] float32, without nan.
        keys: (seed, prompt id) of every row.
        step: place of the new token in the continuation, from 0.
        stream: as in ``gumbel``.
    """
    chosen = np.empty(len(keys), dtype=np.int64)
    for row, key in enumerate(keys):
        bits, own = _bits(key, step, scores.shape[-1], stream), scores[row]
        best = own.argmax()
        first = own[best] + _of(bits[best])
        margin = ROUNDING * (1 + abs(float(first))) if np.isfinite(first) else 0.0
        near = np.flatnonzero(own >= first - _of(bits.max()) - margin)
        if 2 * len(near) > len(own):  # picking out most of them would cost more than it saves
            near = np.arange(len(own))
        chosen[row] = near[(own[near] + _of(bits[near])).argmax()]
    return chosen


def _bits(key: tuple[int, int], step: int, vocabulary: int, stream: int) -> np.ndarray:
    """The random bits of every token, [vocabulary] uint64; more of them are more noise."""
    # Step and stream have a word of the counter each: no two of them ever meet.
    bits = np.random.Philox(key=np.array(key, np.uint64), counter=np.array([0, step, stream, 0], np.uint64))
    return bits.random_raw(vocabulary)


def _of(bits: np.ndarray) -> np.ndarray:
    """The noise that bits mean, float32."""
    uniform = ((bits >> np.uint64(11)) + 0.5) * 2.0**-53  # inside (0, 1), never an end
    return (-np.log(-np.log(uniform))).astype(np.float32)
