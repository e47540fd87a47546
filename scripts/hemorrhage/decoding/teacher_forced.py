"""What teacher forcing adds to a text's record: agreement and distances at given places, and amplification.

*Amplification* is the share of differing tokens in free running over the share of differing choices along the given
text, a ratio of means over prompts: what a decoder makes of one wrong choice. ``amplification`` takes the decoder's own
choices, ``amplification_common`` those of greedy search, the same denominator for every decoder of a variant. Below 1 a
decoder absorbs damage. Only numpy is used.
"""

from __future__ import annotations

import dataclasses
import math
from os import PathLike

import numpy as np

from hemorrhage.analysis.statistics import Estimate, index_matrix, mean_interval
from hemorrhage.records import Metric

GREEDY = "greedy"


def metrics(path: str | PathLike, decoder: str, agreement: np.ndarray, model: str) -> list[Metric]:
    """Return the metrics of one decoder.

    Args:
        path: the archive of ``forced.measure``.
        decoder: slug of the decoder.
        agreement: [prompts] token agreement of the free-running texts with the reference's.
        model: name of the model.
    """
    with np.load(path, allow_pickle=False) as archive:
        arrays = {key: archive[key] for key in archive.files}
    index = index_matrix(model, "prompts", len(agreement))
    found = [Metric.of("reference_nll", _reference_nll(arrays[f"nll.{decoder}"], index), "nats", None)]
    if f"count.{decoder}" in arrays:
        found += _weight_effect(arrays, decoder, index)
        found += _decoder_effect(arrays, decoder, index) if decoder != GREEDY else []
    for name, slug in (("amplification", decoder), ("amplification_common", GREEDY)):
        ratio = amplification(arrays, slug, agreement, index)
        if ratio is not None:
            found.append(Metric.of(name, ratio, "", None))
    return found


def amplification(
    arrays: dict[str, np.ndarray], slug: str, agreement: np.ndarray, index: np.ndarray
) -> Estimate | None:
    """Return the ratio with its interval; None without forced choices or without a difference among them.

    ``n`` is the number of forced choices behind the denominator.
    """
    if f"count.{slug}" not in arrays:
        return None
    differing = 1 - arrays[f"weight_effect.agreement.{slug}"] / arrays[f"count.{slug}"]
    if not differing.sum() > 0:
        return None
    smallest = 1e-9  # a prompt without a difference has nothing below, and a count of 0 would leave it out
    ratio = mean_interval(1 - agreement, np.maximum(differing, smallest), index, (0.0, math.inf))
    return dataclasses.replace(ratio, n=int(arrays[f"count.{slug}"].sum()))


def _weight_effect(arrays: dict[str, np.ndarray], slug: str, index: np.ndarray) -> list[Metric]:
    """The variant against the reference, with one decoder."""
    effect, counts = "weight_effect", arrays[f"count.{slug}"]
    agreement, variation = (
        mean_interval(arrays[f"{effect}.{name}.{slug}"], counts, index, (0, 1))
        for name in ("agreement", "total_variation")
    )
    found = [
        Metric.of(f"{effect}.forced.token_agreement", agreement, "share", True),
        Metric.of(f"{effect}.forced.total_variation", variation, "share", False),
    ]
    finite = arrays[f"{effect}.kl_count.{slug}"]
    if finite.sum():
        kl = mean_interval(arrays[f"{effect}.kl.{slug}"], finite, index, (0.0, math.inf))
        infinite = mean_interval(counts - finite, counts, index, (0, 1))
        found += [
            Metric.of(f"{effect}.forced.kl_finite", kl, "nats", False),
            Metric.of(f"{effect}.forced.kl_infinite_share", infinite, "share", False),
        ]
    return found


def _decoder_effect(arrays: dict[str, np.ndarray], slug: str, index: np.ndarray) -> list[Metric]:
    """The decoder against greedy search, and against drawing from the whole softmax, on the variant's weights."""
    effect, counts = "decoder_effect", arrays[f"count.{slug}"]
    agreement = mean_interval(arrays[f"{effect}.agreement.{slug}"], counts, index, (0, 1))
    kl = mean_interval(arrays[f"{effect}.kl.{slug}"], counts, index, (0.0, math.inf))
    return [
        Metric.of(f"{effect}.forced.token_agreement", agreement, "share", None),
        Metric.of(f"{effect}.forced.kl_from_softmax", kl, "nats", None),
    ]


def _reference_nll(values: np.ndarray, index: np.ndarray) -> Estimate:
    """The mean over prompts of the mean over seeds, [prompts, seeds], empty texts left out; ``n`` counts the texts."""
    texts = np.isfinite(values)
    counts = texts.sum(axis=1)
    means = np.where(texts, values, 0.0).sum(axis=1) / np.maximum(counts, 1)
    mean = mean_interval(means, (counts > 0).astype(float), index, (0.0, math.inf))
    return dataclasses.replace(mean, n=int(counts.sum()))
