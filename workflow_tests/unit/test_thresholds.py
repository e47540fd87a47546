"""Thresholds: states, interpolation, intervals, integer axes, broken curves, and the published tables."""

import csv
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hemorrhage.analysis import isotonic, tables, thresholds
from hemorrhage.analysis.curves import curves

LEVELS = np.array([0.0, 0.2, 0.4, 0.6])
PUBLISHED = Path(__file__).resolve().parents[2] / "resources" / "published" / "paper_pruning.tsv"
DENSE = {"4096": 5.12, "2048": 5.47, "128": 12.19}  # LLaMA-2-7B, WikiText-2, by window
CROSSINGS = {  # perplexity +5 %, +25 %, x2, x10; None: not reached at 0.8
    "magnitude": (0.210, 0.343, 0.447, 0.522),
    "wanda": (0.305, 0.504, 0.606, 0.694),
    "sparsegpt": (0.315, 0.520, 0.638, None),
    "admm": (0.335, 0.542, 0.669, None),
    "ria": (0.335, 0.501, 0.600, 0.678),
    "sleb": (0.029, 0.124, 0.256, 0.448),
    "slicegpt_wo_ft": (0.112, 0.223, 0.374, 0.685),
    "llm_pruner_wo_ft": (0.039, 0.126, 0.262, 0.437),
    "flap_wifv": (0.048, 0.164, 0.354, 0.601),
}


def test_a_continuous_axis_is_interpolated_in_nats():
    found = thresholds.tolerance(LEVELS, [0, 0.1, 0.3, 2.0], at=0.2)
    assert found.state == "inside" and found.threshold == pytest.approx(0.3)
    assert (found.inside, found.outside) == (0.2, 0.4) and math.isnan(found.low)


def test_the_order_of_the_levels_does_not_matter():
    order = [2, 0, 3, 1]
    damage = np.array([0, 0.1, 0.3, 2.0])
    assert thresholds.tolerance(LEVELS[order], damage[order], at=0.2).threshold == pytest.approx(0.3)


def test_an_integer_axis_reports_last_inside_and_first_outside():
    found = thresholds.tolerance([8, 6, 5, 4], [0.0, 0.05, 0.15, 1.0], at=0.1, rises=False, integer=True)
    assert (found.threshold, found.inside, found.outside) == (6, 6, 5)


def test_the_interval_on_an_integer_axis_holds_the_untested_levels_before_the_first_outside():
    damage = np.array([0.0, 0.05, 0.5, 1.0])
    falling = thresholds.tolerance([8, 6, 3, 2], damage, 0.1, low=damage, high=damage, rises=False, integer=True)
    assert (falling.threshold, falling.low, falling.high) == (6, 4, 6)
    rising = thresholds.tolerance([0, 1, 4, 8], damage, 0.1, low=damage, high=damage, integer=True)
    assert (rising.threshold, rising.low, rising.high) == (1, 1, 3)


def test_each_end_on_an_integer_axis_takes_the_levels_of_its_own_band():
    damage = np.array([0.0, 0.05, 0.15, 1.0])
    found = thresholds.tolerance([0, 2, 5, 9], damage, 0.1, low=damage * 0.5, high=damage * 2.5, integer=True)
    assert (found.threshold, found.low, found.high) == (2, 0, 8)
    exceeded = thresholds.tolerance([8, 6, 5, 4], damage + 1, 0.1, damage + 1, damage + 1, rises=False, integer=True)
    assert (exceeded.state, exceeded.low, exceeded.high) == ("already exceeded", 9, math.inf)


def test_states_of_the_ends():
    assert thresholds.tolerance(LEVELS, [0, 0.1, 0.2, 0.3], at=0.3).state == "not reached"
    exceeded = thresholds.tolerance(LEVELS, [0.5, 0.6, 0.7, 0.8], at=0.3)
    assert exceeded.state == "already exceeded" and exceeded.outside == 0 and math.isnan(exceeded.inside)
    assert thresholds.tolerance(LEVELS[:3], [0, 0.1, 0.5], at=0.3).state == "too few levels"
    assert thresholds.tolerance(LEVELS, [0, 0.1, 0.2, 0.5], at=0.01, floor=0.002).state == "below floor"
    assert thresholds.tolerance(LEVELS, [0, 0.1, 0.2, 0.5], at=0.01, floor=0.001).state == "inside"


def test_the_interval_runs_between_the_crossings_of_the_bands():
    damage = np.array([0, 0.1, 0.3, 2.0])
    found = thresholds.tolerance(LEVELS, damage, 0.2, low=damage * 0.8, high=damage * 1.25)
    assert found.low < found.threshold < found.high
    assert found.low == pytest.approx(0.2 + 0.2 * (0.2 - 0.125) / 0.25)
    assert found.high == pytest.approx(0.2 + 0.2 * (0.2 - 0.08) / 0.16)


def test_an_interval_that_leaves_the_tested_levels_is_open():
    damage = np.array([0, 0.1, 0.2, 0.3])
    found = thresholds.tolerance(LEVELS, damage, 0.25, low=damage * 0.5, high=damage * 1.5)
    assert found.state == "inside" and found.high == math.inf
    falling = thresholds.tolerance(-LEVELS, damage, 0.25, low=damage * 0.5, high=damage * 1.5, rises=False)
    assert falling.low == -math.inf and falling.threshold == pytest.approx(-found.threshold)


def test_a_finite_damage_without_an_interval_leaves_the_threshold_without_one():
    damage, unknown = np.array([0, 0.1, 0.3, 2.0]), np.full(4, math.nan)
    found = thresholds.tolerance(LEVELS, damage, 0.2, low=unknown, high=unknown)
    assert found.threshold == pytest.approx(0.3) and found.monotone
    assert math.isnan(found.low) and math.isnan(found.high)
    partly = thresholds.tolerance(LEVELS, damage, 0.2, low=[0, math.nan, 0.2, 1], high=[0, math.nan, 0.4, 3])
    assert math.isnan(partly.low) and math.isnan(partly.high)


def test_an_infinite_damage_needs_no_interval():
    damage = np.array([0, 0.1, 0.3, math.inf])
    ends = [np.array([*(damage[:3] * factor), math.nan]) for factor in (0.8, 1.25)]
    found = thresholds.tolerance(LEVELS, damage, 0.2, *ends)
    assert 0.2 < found.low < found.threshold < found.high < 0.4


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_no_number_is_infinite_damage_and_nothing_is_interpolated_towards_it(bad):
    found = thresholds.tolerance(LEVELS, [0, 0.1, bad, 0.2], at=0.15)
    assert (found.threshold, found.inside, found.outside) == (0.2, 0.2, 0.4)


def test_a_dip_is_pooled_and_flagged_if_its_interval_cannot_explain_it():
    damage = np.array([0, 0.3, 0.1, 2.0])
    sharp = thresholds.tolerance(LEVELS, damage, 0.25, low=damage - 0.01, high=damage + 0.01)
    wide = thresholds.tolerance(LEVELS, damage, 0.25, low=damage - 0.2, high=damage + 0.2)
    assert not sharp.monotone and wide.monotone
    assert sharp.threshold > 0.4  # the pooled 0.2 is within the tolerance; the first raw 0.3 was not


def test_isotonic_fit_is_the_weighted_least_squares_one():
    fit = isotonic.fit(np.array([1.0, 3.0, 1.0, 4.0, math.inf, 2.0]), np.array([1.0, 1.0, 3.0, 1.0, 1.0, 1.0]))
    assert fit.tolist() == [1.0, 1.5, 1.5, 4.0, math.inf, math.inf]


@pytest.mark.parametrize("method", CROSSINGS)
def test_published_tables_cross_where_they_are_known_to(method):
    with PUBLISHED.open(encoding="utf8") as handle:
        rows = [
            row
            for row in csv.DictReader(handle, delimiter="\t")
            if row["method"] == method
            and row["table"] in ("table1", "table2")
            and ":" not in row["level"]
            and (row["model"], row["dataset"]) == ("LLaMA-2-7B", "wikitext2")
        ]
    levels = [0.0, *(float(row["level"]) for row in rows)]
    nats = [0.0, *(math.log(float(row["perplexity"]) / DENSE[row["context"]]) for row in rows)]
    for ratio, expected in zip((1.05, 1.25, 2, 10), CROSSINGS[method], strict=True):
        found = thresholds.tolerance(levels, nats, math.log(ratio))
        if expected is None:
            assert found.state == "not reached"
        else:
            assert found.threshold == pytest.approx(expected, abs=0.005)


def test_the_table_holds_every_sweep_with_two_levels(example):
    table = tables.read(example["thresholds"])
    assert list(table.columns) == thresholds.COLUMNS
    assert not table.sweep.str.contains("rtn_bits~4|sparsity~0.5").any()  # one level is no walk
    magnitude = table[(table.sweep == "magnitude_sparsity~*") & (table.criterion == "kl_0.1")].iloc[0]
    assert magnitude.levels == 6  # the reference is the harmless end
    assert magnitude.inside < magnitude.low < magnitude.threshold < magnitude.high < magnitude.outside
    static = table[(table.sweep == "static_activations_bits~*") & (table.criterion == "kl_0.01")].iloc[0]
    assert static.state == "already exceeded" and static.levels == 5  # bits have no harmless end


def test_the_harmless_end_of_chained_steps_is_what_remains(example):
    found = {curve.sweep: curve for curve in curves(tables.read(example["metrics"]), example["study"], fewest=1)}
    assert found["magnitude_sparsity~*+rtn_bits~4"].variants[0] == "rtn_bits~4"
    assert found["magnitude_sparsity~*+calibrated_temperature"].variants[0] == "identity"
    assert not found["magnitude_sparsity~0.5+rtn_bits~*"].anchored


def behind_a_finetune(example, alone):
    """The sweep of magnitude with a fine-tune in the place of the calibrated temperature; perhaps measured alone."""
    study, old, new = example["study"], "calibrated_temperature", "finetune"
    recipes = {
        slug.replace(old, new): [{**step, "method": step["method"].replace(old, new)} for step in steps]
        for slug, steps in study["recipes"].items()
    }
    recipes[new] = [{"method": new, "settings": {}}]
    changed = {**study, "recipes": recipes, "repairs": {**study["repairs"], new: ["*"]}}
    metrics = tables.read(example["metrics"])
    for column in ("variant", "sweep", "method", "arm"):
        metrics[column] = metrics[column].str.replace(old, new)
    if alone:
        own = metrics[metrics.variant == "identity"].assign(variant=new, method=new)
        metrics = pd.concat([metrics, own])
    found = {curve.sweep: curve for curve in curves(metrics, changed)}
    return found["magnitude_sparsity~*+finetune"]


def test_a_finetune_without_damage_before_it_is_not_the_reference(example):
    curve = behind_a_finetune(example, alone=False)
    assert not curve.anchored and 0 not in curve.levels
    assert "identity" not in curve.variants


def test_a_finetune_measured_alone_is_the_harmless_end_of_the_sweep_behind_it(example):
    curve = behind_a_finetune(example, alone=True)
    assert curve.anchored and (curve.levels[0], curve.variants[0]) == (0, "finetune")
