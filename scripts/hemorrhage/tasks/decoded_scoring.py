"""From scores of generated answers to metrics: the score of each decoder, and what decoder and weights change in it.

The two contrasts are those of generated text: ``decoder_effect`` is this decoder against greedy search on the same
weights, ``weight_effect`` the variant against the reference with the same decoder and noise. Items are what is
resampled; the seeds of a stochastic decoder are averaged inside them. Only numpy is used.
"""

from __future__ import annotations

import numpy as np

from hemorrhage.analysis.statistics import index_matrix, mean_interval
from hemorrhage.records import Metric
from hemorrhage.tasks.decoded import Scores

CHANGE = (-1.0, 1.0)


def metrics(task: str, scores: Scores, reference: Scores, greedy: Scores | None, model: str) -> list[Metric]:
    """Return the metrics of one task and decoder, their names ending in a dot and the task's.

    Where all items agree, an interval is that of so many draws; only what is compared with itself is exact.

    Args:
        task: a word.
        scores: of the variant with the decoder.
        reference: of the unmodified model with the same decoder; for the unmodified model itself ``scores``.
        greedy: of the variant with greedy search; None for greedy search itself.
        model: the model's name, which seeds the resampling: all variants and decoders of it are resampled alike.

    Raises:
        ValueError: the items differ.
    """
    index = index_matrix(model, f"decoded_tasks.{task}", len(scores.ids))
    found = [_mean(f"score.{task}", scores.score, index, (0.0, 1.0), True)]
    if greedy is not None:
        found += _contrast("decoder_effect", task, scores, greedy, index, None)
    return found + _contrast("weight_effect", task, scores, reference, index, True)


def _contrast(
    name: str, task: str, scores: Scores, other: Scores, index: np.ndarray, better: bool | None
) -> list[Metric]:
    if not np.array_equal(scores.digests, other.digests):
        raise ValueError(f"decoding.tasks: other items of {task} were asked before; delete that record and run again.")
    change = scores.score - other.score  # a decoder without noise has one column, which meets every seed
    flips, lower, drawn = np.abs(change), None if better is None else False, scores is not other
    return [
        _mean(f"{name}.delta_score.{task}", change, index, CHANGE, better, drawn),
        _mean(f"{name}.flips.{task}", flips, index, (0.0, 1.0), lower, drawn),
    ]


def _mean(
    name: str,
    values: np.ndarray,
    index: np.ndarray,
    bounds: tuple[float, float],
    better: bool | None,
    drawn: bool = True,
) -> Metric:
    """The mean over items of the mean over seeds, [items, seeds]; ``n`` is the number of answers."""
    rows = values.mean(axis=1, dtype=np.float64)
    estimate = mean_interval(rows, np.ones(len(rows)), index, bounds, bernoulli=drawn)
    return Metric(
        name, estimate.value, estimate.se, estimate.low, estimate.high, values.size, estimate.blocks, "share", better
    )
