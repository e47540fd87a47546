"""Criteria on scores of other probes: relative to the reference, falling with damage, and refused where senseless."""

import example_study
import pandas as pd
import pytest

from hemorrhage.analysis import mitigations, tables, thresholds
from hemorrhage.analysis.curves import curves
from hemorrhage.reporting import wording

SHARE = {"accuracy": {"metric": "accuracy.last_word", "relative": 0.95}}
FLIPS = {"flips": {"metric": "flips.last_word", "probe": "tasks", "at": 0.1}}


@pytest.fixture(scope="module")
def with_tasks(example, tmp_path_factory):
    """The made-up study with a task score and flips on the magnitude sweep, under a protocol of its own."""
    folder = tmp_path_factory.mktemp("tasks")
    metrics = tables.read(example["metrics"])
    base = metrics[
        (metrics.metric == "top1_agreement")
        & ((metrics.sweep == "magnitude_sparsity~*") | (metrics.variant == "identity"))
    ]
    score = base.assign(
        probe="tasks",
        metric="accuracy.last_word",
        protocol="items-100",
        **{name: 0.8 * base[name] for name in ("value", "low", "high")},
    )
    flips = score.assign(metric="flips.last_word", value=1 - base.value, low=1 - base.high, high=1 - base.low)
    tables.write(pd.concat([metrics, score, flips]), folder / "metrics.tsv")
    return {**example, "metrics": str(folder / "metrics.tsv"), "folder": folder}


def found(study, criteria):
    out = study["folder"] / "thresholds.tsv"
    thresholds.find(study["metrics"], study["study"], criteria, None, str(out))
    table = tables.read(out)
    return table[table.estimator == "tolerance"]


def test_a_share_of_the_reference_score_is_a_tolerance(with_tasks):
    table = found(with_tasks, SHARE)
    assert list(table.sweep) == ["magnitude_sparsity~*"]  # the probe measured no other sweep
    row = table.iloc[0]
    assert row.tolerance == pytest.approx(0.95 * 0.8) and row.state == "inside"
    assert row.low < row.threshold < row.high
    curve = next(
        curve for curve in curves(tables.read(with_tasks["metrics"]), with_tasks["study"]) if curve.sweep == row.sweep
    )
    values = curve.values(tables.read(with_tasks["metrics"]), "accuracy.last_word", "tasks").value
    assert values[list(curve.levels).index(row.inside)] >= row.tolerance
    assert values[list(curve.levels).index(row.outside)] < row.tolerance


def test_flips_rise_with_damage(with_tasks):
    row = found(with_tasks, FLIPS).iloc[0]
    assert row.state == "inside" and row.tolerance == 0.1


def test_mitigations_take_the_same_criteria(with_tasks):
    out = with_tasks["folder"] / "mitigations.tsv"
    mitigations.compare(
        with_tasks["metrics"],
        with_tasks["windows"],
        with_tasks["study"],
        {**SHARE, **example_study.CRITERIA},
        None,
        str(out),
    )
    table = tables.read(out)
    # Only one side of every pair has the score: no shift by it, and the others are as before.
    assert "accuracy" not in set(table.criterion) and "kl_0.1" in set(table.criterion)


def test_words_of_a_relative_criterion():
    assert wording.criterion(SHARE["accuracy"]) == "95 % of the reference's accuracy.last word"
