"""Gumbel noise that depends on seed, prompt, step and token only: common random numbers for sampled text.

A token drawn as ``argmax(scores + gumbel)`` follows softmax(scores) (Gumbel-max). The noise of one prompt, step and
token is the same whatever the weights and wherever the prompt stands in a batch, so two texts differ because of what
differs between their scores, not because the dice fell differently. The bits come from a counter-based generator
(Philox; Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"), whose raw stream numpy never changes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


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
        # Step and stream have a word of the counter each: no two of them ever meet.
        bits = np.random.Philox(key=np.array(key, np.uint64), counter=np.array([0, step, stream, 0], np.uint64))
        uniform = ((bits.random_raw(vocabulary) >> np.uint64(11)) + 0.5) * 2.0**-53  # inside (0, 1), never an end
        noise[row] = -np.log(-np.log(uniform))
    return noise
