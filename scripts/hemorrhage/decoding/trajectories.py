"""How far two texts of the same prompts part: what the decoder does and what the weights do, kept apart.

Three contrasts over pairs of continuations of one prompt:

- ``decoder_effect``: same weights, this decoder against greedy search;
- ``weight_effect``: same decoder and same noise, the variant against the reference;
- ``seed_floor``: the reference against itself with another seed; no weight effect of a sampled text can be told from
  the dice beyond it.

A text that ends is followed by nothing: against a longer one it differs from its end on, and two texts that ended
alike stay alike up to the limit. Texts that never part within the limit count as parting at the limit (censored);
``identical_share`` says how many. After the first difference greedy texts are chaotic, so token agreement beyond it
says little; read it beside the first divergence.

Only numpy is used.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from hemorrhage import records
from hemorrhage.analysis.statistics import index_matrix, mean_interval
from hemorrhage.decoding import mauve_distance, teacher_forced
from hemorrhage.decoding.text_measures import edit_distance
from hemorrhage.decoding.text_qualities import qualities
from hemorrhage.planning import variants
from hemorrhage.records import Metric

VERSION = 7
PREFIXES = (8, 32)  # tokens; the whole curve is in the arrays
SHARES = ("identical_share", "prefix_agreement_", "unfinished_share")  # of pairs or texts with a property, yes or no
Lines = dict[int, dict[int | None, dict[str, Any]]]


@dataclass(frozen=True)
class Comparison:
    """Pairs of continuations, [prompts, pairs] each; pairs are the seeds, or the pairs of seeds.

    Attributes:
        first_divergence: place of the first differing token, from 0; ``limit`` if there is none.
        token_agreement: share of equal tokens at equal places of the longer text; 1 for two empty texts.
        edit_distance: Levenshtein distance over the longer length.
        limit: most new tokens of a continuation.
    """

    first_divergence: np.ndarray
    token_agreement: np.ndarray
    edit_distance: np.ndarray
    limit: int

    def prefix_agreement(self, n: int) -> np.ndarray:
        """Return True where the first ``n`` tokens are equal."""
        return self.first_divergence >= n

    @property
    def identical(self) -> np.ndarray:
        """True where the texts never part."""
        return self.prefix_agreement(self.limit)


def measure(
    text: str | PathLike,
    greedy: str | PathLike,
    reference: str | PathLike,
    record: str | PathLike,
    *,
    model: str,
    variant: str,
    decoder: str,
    forced: str | PathLike | None = None,
    reference_forced: str | PathLike | None = None,
) -> None:
    """Write the record ``text.{decoder}`` of one variant; prompts are the blocks, seeds are averaged inside them.

    Beside the metrics the record keeps ``arrays.{contrast}.prefix`` [limit + 1, 3]: the share of pairs that agree in
    their first n tokens, with the ends of its interval.

    Args:
        text: the continuations of the variant with this decoder.
        greedy: those of the variant with greedy search.
        reference: those of the reference with this decoder.
        record: path of the record (.json).
        model: name of the model.
        variant: slug of the variant.
        decoder: slug of the decoder.
        forced: the archive of ``forced.measure`` for this variant.
        reference_forced: that of the reference.

    Raises:
        ValueError: if a text cannot be read, or the texts do not belong together.
    """
    metrics: list[Metric] = []
    arrays: dict[str, np.ndarray] = {}
    compared = contrasts(text, greedy, reference, variant, decoder)
    for contrast, comparison in compared.items():
        better = True if contrast == "weight_effect" else None  # another decoder or seed is meant to say another thing
        drawn = contrast != "weight_effect" or variant != variants.REFERENCE  # else a text is compared with itself
        for name, values in per_prompt(comparison).items():
            top, unit = (comparison.limit, "tokens") if name == "first_divergence" else (1, "share")
            towards = None if better is None else name != "edit_distance"
            n, bernoulli = comparison.first_divergence.size, drawn and name.startswith(SHARES)
            metrics.append(_metric(f"{contrast}.{name}", values, n, top, unit, towards, model, bernoulli=bernoulli))
        arrays[f"{contrast}.prefix"] = prefix_curve(comparison, model, drawn)
    lines = read(text)
    metrics += _alone(lines, {"decoder_effect": read(greedy), "weight_effect": read(reference)}, decoder, model)
    if forced is not None:
        agreement = compared["weight_effect"].token_agreement.mean(axis=1)
        metrics += teacher_forced.metrics(forced, decoder, agreement, model)
        metrics += _mauve(forced, reference_forced or forced, decoder)
    records.write(
        record,
        records.Measurement(metrics, arrays=arrays),
        model=model,
        variant=variant,
        probe=f"text.{decoder}",
        version=VERSION,
        protocol=_protocol(lines),
    )


def _mauve(forced: str | PathLike, reference: str | PathLike, decoder: str) -> list[Metric]:
    """The distance of this decoder's texts from greedy ones and from the reference's, where there are enough texts."""
    with np.load(forced, allow_pickle=False) as own, np.load(reference, allow_pickle=False) as other:
        features = own[f"features.{decoder}"]
        sides = {"weight_effect": other[f"features.{decoder}"], "decoder_effect": own["features.greedy"]}
    if decoder == "greedy":
        del sides["decoder_effect"]
    found = {contrast: mauve_distance.estimate(features, side) for contrast, side in sides.items()}
    return [
        Metric.of(f"{contrast}.mauve_distance", value, "share", False if contrast == "weight_effect" else None)
        for contrast, value in found.items()
        if value is not None
    ]


def prefix_curve(comparison: Comparison, model: str, drawn: bool = True) -> np.ndarray:
    """Return share, low and high end of the pairs that agree in their first n tokens, [limit + 1, 3], n from 0.

    Without ``drawn`` texts are compared with themselves, and that all of them agree is exact.
    """
    shares = [comparison.prefix_agreement(n).mean(axis=1, dtype=np.float64) for n in range(comparison.limit + 1)]
    index = index_matrix(model, "prompts", len(shares[0]))
    found = [
        mean_interval(share, np.ones(len(share)), index, (0, 1), bernoulli=drawn and n > 0)
        for n, share in enumerate(shares)
    ]
    return np.array([[entry.value, entry.low, entry.high] for entry in found])


def _alone(lines: Lines, others: dict[str, Lines], decoder: str, model: str) -> list[Metric]:
    """What the texts are like by themselves, and the paired difference from the texts of each contrast."""
    rows = sum(len(found) for found in lines.values())
    own, metrics = qualities(lines), []
    for name, values in own.items():
        top, unit = (_limit(lines), "tokens") if name == "length" else (1, "share")
        metrics.append(_metric(name, values, rows, top, unit, None, model, bernoulli=name in SHARES))
    for contrast, other in others.items():
        if contrast == "decoder_effect" and decoder == "greedy":
            continue
        compared = qualities(other)
        for name, values in own.items():
            unit = "tokens" if name == "length" else "share"
            metrics.append(
                _metric(f"{contrast}.delta_{name}", values - compared[name], rows, np.inf, unit, None, model, -np.inf)
            )
    return metrics


def read(path: str | PathLike) -> Lines:
    """Return the lines of a text file by prompt id and seed.

    Raises ValueError naming the file if it is empty or not what ``generation.write_text`` writes.
    """
    lines: Lines = {}
    try:
        # A text may hold what splitlines takes for the end of a line: U+2028, U+2029, U+0085.
        for text in filter(None, Path(path).read_text(encoding="utf8").split("\n")):
            line = json.loads(text)
            lines.setdefault(line["prompt"], {})[line["seed"]] = line
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{path}: this is not a file of continuations; delete it and run again.") from None
    if not lines:
        raise ValueError(f"{path}: there is no continuation in this file; delete it and run again.")
    return lines


def compare(a: str | PathLike, b: str | PathLike) -> Comparison:
    """Compare the continuations of ``a`` with those of ``b``: the same prompt and seed, or b's only one.

    Raises ValueError if the prompts, the limits or the seeds do not match.
    """
    return _pair(read(a), read(b), f"{a} and {b}")


def compare_seeds(path: str | PathLike) -> Comparison | None:
    """Compare every two seeds of one text file; None if there are fewer than two."""
    lines = read(path)
    pairs = [
        [(found[first], found[second]) for i, first in enumerate(found) for second in list(found)[i + 1 :]]
        for found in lines.values()
    ]
    return _comparison(pairs) if all(pairs) else None


def contrasts(
    text: str | PathLike, greedy: str | PathLike, reference: str | PathLike, variant: str, decoder: str
) -> dict[str, Comparison]:
    """Return the contrasts of one variant and decoder by name.

    Greedy search has no decoder effect, and the floor is the reference's own.

    The arguments are those of ``measure``.
    """
    found = {"weight_effect": compare(text, reference)}
    if decoder != "greedy":
        found["decoder_effect"] = compare(text, greedy)
    floor = compare_seeds(text) if variant == variants.REFERENCE else None
    if floor:
        found["seed_floor"] = floor
    return found


def per_prompt(comparison: Comparison) -> dict[str, np.ndarray]:
    """Return the measures of a comparison, the mean over the pairs of each prompt, [prompts] each."""
    measures = {
        "first_divergence": comparison.first_divergence,
        "token_agreement": comparison.token_agreement,
        "edit_distance": comparison.edit_distance,
        "identical_share": comparison.identical,
        **{f"prefix_agreement_{n}": comparison.prefix_agreement(n) for n in PREFIXES if n < comparison.limit},
    }
    return {name: values.mean(axis=1, dtype=np.float64) for name, values in measures.items()}


def _metric(
    name: str,
    values: np.ndarray,
    n: int,
    top: float,
    unit: str,
    better: bool | None,
    model: str,
    bottom: float = 0.0,
    bernoulli: bool = False,
) -> Metric:
    """The mean over the prompts whose value is known; ``n`` is the number of continuations or pairs behind it."""
    index, known = index_matrix(model, "prompts", len(values)), np.isfinite(values)
    estimate = mean_interval(np.where(known, values, 0.0), known.astype(float), index, (bottom, top), bernoulli)
    return Metric.of(name, dataclasses.replace(estimate, n=n), unit, better)


def _limit(lines: Lines) -> int:
    return int(next(iter(next(iter(lines.values())).values()))["limit"])


def _protocol(lines: Lines) -> dict[str, Any]:
    """What two records must share to be compared: the prompts, by hash, and the limit."""
    first = [next(iter(found.values())) for found in lines.values()]
    digest = hashlib.blake2b("".join(line["prompt_hash"] for line in first).encode(), digest_size=4).hexdigest()
    limit, seeds = first[0]["limit"], [seed for seed in lines[first[0]["prompt"]] if seed is not None]
    return {"slug": f"prompts-{len(first)}-{digest}-new-{limit}", "new_tokens": limit, "seeds": seeds}


def _pair(a: Lines, b: Lines, where: str) -> Comparison:
    if _prompts(a) != _prompts(b):
        raise ValueError(
            f"{where}: these texts continue different prompts or have different limits; delete the older "
            "one and run again."
        )
    pairs = []
    for prompt, found in a.items():
        other = b[prompt]
        if set(other) != {None} and set(other) != set(found):
            raise ValueError(
                f"{where}: these texts were sampled with different seeds; delete the older one and run again."
            )
        pairs.append([(line, other.get(seed, other.get(None))) for seed, line in found.items()])
    return _comparison(pairs)


def _prompts(lines: Lines) -> dict[int, set[tuple[str, int]]]:
    return {
        prompt: {(line["prompt_hash"], line["limit"]) for line in found.values()} for prompt, found in lines.items()
    }


def _comparison(pairs: Iterable[Sequence[tuple[Any, Any]]]) -> Comparison:
    pairs = list(pairs)
    limit = pairs[0][0][0]["limit"]
    tokens = [[(a["tokens"], b["tokens"]) for a, b in row] for row in pairs]
    return Comparison(
        np.array([[_first_divergence(a, b, limit) for a, b in row] for row in tokens]),
        np.array([[_agreement(a, b) for a, b in row] for row in tokens]),
        np.array([[edit_distance(a, b) for a, b in row] for row in tokens]),
        limit,
    )


def _first_divergence(a: list[int], b: list[int], limit: int) -> int:
    if a == b:
        return limit
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _agreement(a: list[int], b: list[int]) -> float:
    longest = max(len(a), len(b))
    return sum(x == y for x, y in zip(a, b, strict=False)) / longest if longest else 1.0
