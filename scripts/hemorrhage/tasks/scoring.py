"""From answers to metrics: accuracy and margin of one model, and what changed against the reference, item by item.

Two models with the same accuracy can differ in many items; so beside the difference of the accuracies stand the flips,
the exact test of McNemar on them, and the change of the margin, which moves before an answer does. Intervals take the
item as the unit and are paired; where all items agree they are those of so many draws, and only the reference against
itself is exact. Only numpy is used.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from hemorrhage.analysis.statistics import Estimate, index_matrix, jackknife_interval, mean_interval, unseen_share
from hemorrhage.records import Metric
from hemorrhage.tasks.answers import UNKNOWN, Answers

SHARE = "share"
NATS = "nats"
BOUNDED = (0.0, 1.0)
CHANGE = (-1.0, 1.0)


def metrics(task: str, answers: Answers, reference: Answers, model: str) -> list[Metric]:
    """Return the metrics of one task, their names ending in a dot and the task's.

    Args:
        task: a word.
        answers: of the variant.
        reference: of the unmodified model to the same items; for the unmodified model itself ``answers``.
        model: the model's name, which seeds the resampling: all variants of it are resampled alike.

    Raises:
        ValueError: the items differ.
    """
    require_same_items(task, answers, reference)
    index = index_matrix(model, f"tasks.{task}", len(answers.ids))
    finite = np.isfinite(answers.margin)
    above_chance = (-float(answers.chance.mean()), 1 - float(answers.chance.mean()))
    found = [
        _mean(f"accuracy.{task}", answers.correct, index, SHARE, True, BOUNDED),
        *(
            [_mean(f"normalised_accuracy.{task}", answers.normalised, index, SHARE, True, BOUNDED)]
            if len(answers.normalised)
            else []
        ),
        *(
            [_mean(f"accuracy_above_chance.{task}", answers.correct - answers.chance, index, SHARE, True, above_chance)]
            if answers.chance.any()
            else []
        ),
        _mean(f"margin.{task}", answers.margin, index, NATS, True, where=finite),
        *_changes(f".{task}", answers, reference, index),
        _mean(
            f"delta_margin.{task}",
            answers.margin - reference.margin,
            index,
            NATS,
            True,
            where=finite & np.isfinite(reference.margin),
        ),
        _mean(f"nonfinite_share.{task}", answers.choice == UNKNOWN, index, SHARE, False, BOUNDED),
    ]
    if len(answers.normalised) and len(reference.normalised):
        change = answers.normalised.astype(float) - reference.normalised
        drawn = answers is not reference
        found.append(_mean(f"delta_normalised_accuracy.{task}", change, index, SHARE, True, CHANGE, drawn=drawn))
    return found


def pooled(answers: Mapping[str, Answers], references: Mapping[str, Answers], model: str) -> list[Metric]:
    """Return the changes over the items of all tasks together: more items, so smaller changes are told from chance."""
    index = index_matrix(model, "tasks", sum(len(entry.ids) for entry in answers.values()))
    together, before = (
        {name: np.concatenate([getattr(entry, name) for entry in side.values()]) for name in ("choice", "correct")}
        for side in (answers, {task: references[task] for task in answers})
    )
    sides = together["choice"], together["correct"], before["choice"], before["correct"]
    return _compared("", *sides, index, drawn=answers is not references)


def mcnemar(to_wrong: int, to_right: int) -> float:
    """Return the two-sided exact p of McNemar's test: flips in the two directions are equally likely."""
    flips = to_wrong + to_right
    tail = sum(math.comb(flips, k) for k in range(min(to_wrong, to_right) + 1))
    return min(1.0, 2 * tail / 2**flips)


def require_same_items(task: str, answers: Answers, reference: Answers) -> None:
    """Raise ValueError if two models were not asked the same."""
    if not np.array_equal(answers.digests, reference.digests):
        raise ValueError(f"tasks: the reference answered other items of {task}; delete its record and run again.")


def _changes(suffix: str, answers: Answers, reference: Answers, index: np.ndarray) -> list[Metric]:
    sides = answers.choice, answers.correct, reference.choice, reference.correct
    return _compared(suffix, *sides, index, drawn=answers is not reference)


def _compared(
    suffix: str,
    choice: np.ndarray,
    correct: np.ndarray,
    choice_before: np.ndarray,
    correct_before: np.ndarray,
    index: np.ndarray,
    drawn: bool,
) -> list[Metric]:
    """Flips, their test, the paired change of accuracy and the share of the reference's score that is lost."""
    to_wrong, to_right = correct_before & ~correct, ~correct_before & correct
    n = len(correct)
    p = mcnemar(int(to_wrong.sum()), int(to_right.sum()))
    return [
        _mean(f"flips{suffix}", choice != choice_before, index, SHARE, False, BOUNDED, drawn=drawn),
        _mean(f"flips_to_wrong{suffix}", to_wrong, index, SHARE, False, BOUNDED, drawn=drawn),
        _mean(f"flips_to_right{suffix}", to_right, index, SHARE, None, BOUNDED, drawn=drawn),
        Metric(f"mcnemar_p{suffix}", p, math.nan, math.nan, math.nan, n, n, "", None),
        _mean(
            f"delta_accuracy{suffix}", correct.astype(float) - correct_before, index, SHARE, True, CHANGE, drawn=drawn
        ),
        Metric.of(f"score_loss{suffix}", _score_loss(correct, correct_before, drawn), SHARE, False),
    ]


def _score_loss(correct: np.ndarray, before: np.ndarray, drawn: bool) -> Estimate:
    """1 - (accuracy / the reference's accuracy): 0.01 is "99 % of the score". The interval leaves out one item."""
    n, right, right_before = len(correct), int(correct.sum()), int(before.sum())
    if not right_before:
        return Estimate(math.nan, math.nan, math.nan, math.nan, n, n)
    value = 1 - right / right_before
    if not drawn:
        return Estimate(0.0, 0.0, 0.0, 0.0, n, n)
    unseen = unseen_share(n) * n / right_before
    if np.array_equal(correct, before):
        return Estimate(0.0, math.nan, -unseen, min(unseen, 1.0), n, n)
    if not right:
        return Estimate(1.0, math.nan, 1 - unseen, 1.0, n, n)
    with np.errstate(divide="ignore", invalid="ignore"):
        deleted = 1 - (right - correct) / (right_before - before)
    se, low, high = jackknife_interval(value, deleted)
    return Estimate(value, se, low, min(high, 1.0), n, n)


def _mean(
    name: str,
    values: np.ndarray,
    index: np.ndarray,
    unit: str,
    better: bool | None,
    bounds: tuple[float, float] = (-math.inf, math.inf),
    where: np.ndarray | None = None,
    drawn: bool = True,
) -> Metric:
    """The mean over the items ``where`` and its interval; a share of items is one of ``drawn`` items."""
    counts = np.ones(len(values)) if where is None else where.astype(float)
    sums = np.where(counts > 0, values, 0.0)
    return Metric.of(name, mean_interval(sums, counts, index, bounds, drawn and unit == SHARE), unit, better)
