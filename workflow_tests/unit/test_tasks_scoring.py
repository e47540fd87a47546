"""Flips, McNemar, margins: by hand, and what must hold for any two sets of answers."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hemorrhage.tasks import scoring
from hemorrhage.tasks.answers import UNKNOWN, Answers, answer


def answers(choices, margin=0.0, gold=0, normalised=()):
    choices = np.array(choices)
    n = len(choices)
    return Answers(
        np.arange(n),
        np.arange(n, dtype=np.uint64),
        choices,
        choices == gold,
        np.full(n, margin) + 0.0,
        np.full(n, 1 / 3),
        np.array(normalised, dtype=bool),
        True,
    )


def found(variant, reference, task="t"):
    return {entry.metric: entry for entry in scoring.metrics(task, variant, reference, "model")}


def test_metrics_by_hand():
    reference = answers([0, 0, 0, 0, 0, 0, 1, 1, 2, 2], margin=1.0)
    variant = answers([0, 0, 0, 1, 2, 2, 0, 1, 1, 2], margin=[2, 1, 0, -1, -1, -1, 1, -1, -1, -1])
    metrics = found(variant, reference)
    expected = {
        "accuracy.t": 0.4,
        "accuracy_above_chance.t": 0.4 - 1 / 3,
        "flips.t": 0.5,
        "flips_to_wrong.t": 0.3,
        "flips_to_right.t": 0.1,
        "mcnemar_p.t": 2 * 5 / 16,
        "delta_accuracy.t": -0.2,
        "score_loss.t": 1 - 4 / 6,
        "margin.t": -0.2,
        "delta_margin.t": -1.2,
        "nonfinite_share.t": 0,
    }
    assert set(metrics) == set(expected)
    for name, value in expected.items():
        assert metrics[name].value == pytest.approx(value), name
        assert (metrics[name].n, metrics[name].blocks) == (10, 10), name
    assert metrics["delta_accuracy.t"].low < -0.2 < metrics["delta_accuracy.t"].high
    assert metrics["accuracy.t"].higher_is_better
    assert metrics["flips.t"].higher_is_better is False


def test_the_reference_against_itself_has_no_flips_and_no_interval():
    same = answers([0, 1, 2, 0, 0], margin=[1, -2, -3, 4, 5], normalised=[1, 0, 0, 1, 1])
    metrics = found(same, same)
    for name in (
        "flips",
        "flips_to_wrong",
        "flips_to_right",
        "delta_accuracy",
        "delta_margin",
        "score_loss",
        "delta_normalised_accuracy",
    ):
        entry = metrics[f"{name}.t"]
        assert (entry.value, entry.se, entry.low, entry.high) == (0, 0, 0, 0), name
    assert metrics["mcnemar_p.t"].value == 1
    assert metrics["normalised_accuracy.t"].value == pytest.approx(0.6)


@pytest.mark.parametrize(
    ("to_wrong", "to_right", "p"),
    [
        (0, 0, 1.0),
        (1, 0, 1.0),
        (5, 0, 0.0625),
        (0, 6, 0.03125),
        (3, 3, 1.0),
        (10, 2, 0.03857421875),
    ],
)
def test_mcnemar_is_the_exact_binomial_test(to_wrong, to_right, p):
    assert scoring.mcnemar(to_wrong, to_right) == p


def test_the_pooled_change_is_over_the_items_of_all_tasks():
    before = {"a": answers([0, 0, 0]), "b": answers([0, 1, 1, 1])}
    after = {"a": answers([1, 0, 0]), "b": answers([0, 0, 2, 1])}
    metrics = {entry.metric: entry for entry in scoring.pooled(after, before, "model")}
    assert metrics["flips"].value == pytest.approx(3 / 7)
    assert metrics["delta_accuracy"].value == 0
    assert metrics["score_loss"].value == 0
    assert metrics["score_loss"].se > 0
    assert metrics["flips"].n == 7


def test_a_variant_that_answers_all_alike_may_differ_in_items_that_were_not_asked():
    choices = [0, 0, 0, 0, 0, 0, 1, 1]
    metrics = found(answers(choices), answers(choices))
    for name in ("flips", "flips_to_wrong", "flips_to_right"):
        entry = metrics[f"{name}.t"]
        assert (entry.value, entry.low) == (0, 0) and entry.high == pytest.approx(0.369, abs=1e-3), name
    change, loss = metrics["delta_accuracy.t"], metrics["score_loss.t"]
    assert (change.low, change.high) == pytest.approx((-0.369, 0.369), abs=1e-3)
    assert (loss.low, loss.high) == pytest.approx((-0.369 / 0.75, 0.369 / 0.75), abs=1e-3)
    pooled = scoring.pooled({"t": answers(choices)}, {"t": answers(choices)}, "model")
    assert next(entry for entry in pooled if entry.metric == "flips").high == pytest.approx(0.369, abs=1e-3)


def test_the_reference_against_itself_is_exact_over_all_tasks_too():
    both = {"a": answers([0, 0, 1]), "b": answers([0, 1])}
    for entry in scoring.pooled(both, both, "model"):
        assert entry.metric == "mcnemar_p" or (entry.value, entry.low, entry.high) == (0, 0, 0), entry.metric


@pytest.mark.parametrize(("choice", "ends"), [(0, (0.631, 1)), (1, (0, 0.369))])
def test_an_accuracy_of_none_or_all_is_not_certain(choice, ends):
    one = answers([choice] * 8)
    metrics = found(one, one)
    accuracy, above = metrics["accuracy.t"], metrics["accuracy_above_chance.t"]
    assert (accuracy.low, accuracy.high) == pytest.approx(ends, abs=1e-3)
    assert (above.low + 1 / 3, above.high + 1 / 3) == pytest.approx(ends, abs=1e-3)


def test_a_lost_score_is_a_share_of_the_reference_s():
    metrics = found(answers([1] * 10), answers([0] * 9 + [1]))
    assert metrics["score_loss.t"].value == 1
    assert metrics["score_loss.t"].low == pytest.approx(1 - 0.3085 / 0.9, abs=1e-3)
    assert math.isnan(found(answers([0, 1]), answers([1, 1]))["score_loss.t"].value)


def test_other_items_are_refused():
    other = answers([0, 1])
    with pytest.raises(ValueError, match="answered other items of t"):
        found(other, dataclasses.replace(other, digests=other.digests + np.uint64(1)))


def test_answers_survive_a_record():
    given_answers = answers([0, 1, 2], margin=[1.0, math.nan, -1], normalised=[1, 0, 1])
    again = Answers.read(given_answers.arrays("t"), "t")
    for field in dataclasses.fields(Answers):
        np.testing.assert_array_equal(getattr(again, field.name), getattr(given_answers, field.name))
    with pytest.raises(ValueError, match="no answers to u"):
        Answers.read(given_answers.arrays("t"), "u")


def sample(*values, greedy=False, **more):
    return {"doc_id": 7, "doc": {}, "arguments": [("a", " b")], "filtered_resps": [(v, greedy) for v in values], **more}


def test_an_answer_from_a_sample_by_hand():
    row = answer(sample(-3.0, -1.0, -2.5, acc_norm=1.0), [2], 3)
    assert (row["choice"], row["correct"], row["margin"], row["normalised"]) == (1, False, -1.5, True)
    assert row["chance"] == pytest.approx(1 / 3)
    row = answer(sample(-3.0, -1.0, -2.5), [0, 1], 3)  # two right ones
    assert (row["choice"], row["correct"], row["margin"], row["normalised"]) == (1, True, 1.5, None)
    row = answer(sample(-3.0, greedy=True), None, 1)
    assert (row["choice"], row["correct"], row["margin"], row["chance"]) == (1, True, -3.0, 0)
    assert row["id"] == 7


@pytest.mark.parametrize("broken", [math.nan, -math.inf])
def test_probabilities_that_are_not_finite_are_a_wrong_answer(broken):
    for row in (
        answer(sample(broken, -1.0), [0], 2),
        answer(sample(-1.0, broken, acc_norm=1.0), [0], 2),
        answer(sample(broken, greedy=True), None, 1),
    ):
        assert (row["choice"], row["correct"]) == (UNKNOWN, False)
        assert math.isnan(row["margin"])
        assert not row["normalised"]


def test_broken_items_are_counted_and_stay_out_of_the_margin():
    reference = answers([0, 0, 0, 0], margin=1.0)
    variant = answers([0, UNKNOWN, 0, 0], margin=[2.0, math.nan, 2.0, 2.0])
    metrics = found(variant, reference)
    assert metrics["nonfinite_share.t"].value == 0.25
    assert metrics["margin.t"].value == 2
    assert metrics["delta_margin.t"].value == 1
    assert metrics["delta_margin.t"].n == 3
    assert metrics["flips_to_wrong.t"].value == 0.25


CHOICES = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=30)


@settings(max_examples=60, deadline=None)
@given(CHOICES)
def test_flips_are_at_least_the_change_of_accuracy(pairs):
    variant, reference = (answers(side) for side in zip(*pairs, strict=True))
    metrics = {name: entry.value for name, entry in found(variant, reference).items()}
    assert metrics["flips.t"] >= abs(metrics["delta_accuracy.t"]) - 1e-12
    assert metrics["flips.t"] >= metrics["flips_to_wrong.t"] + metrics["flips_to_right.t"] - 1e-12
    change = metrics["flips_to_right.t"] - metrics["flips_to_wrong.t"]
    assert metrics["delta_accuracy.t"] == pytest.approx(change, abs=1e-12)
    assert 0 < metrics["mcnemar_p.t"] <= 1
    mirrored = {name: entry.value for name, entry in found(reference, variant).items()}
    assert mirrored["flips.t"] == metrics["flips.t"]
    assert mirrored["mcnemar_p.t"] == metrics["mcnemar_p.t"]
