"""Mitigations: what they are compared with, the shift of the threshold, the difference at equal level."""

import math

import example_study
import numpy as np
import pandas as pd
import pytest

from hemorrhage import plugins
from hemorrhage.analysis import mitigations, statements, tables, thresholds
from hemorrhage.analysis.curves import Curve
from hemorrhage.analysis.thresholds import Threshold
from hemorrhage.reporting import findings, plotting, wording

KL = {"metric": "kl", "at": 0.1}
BITS = {"setting": "bits", "harmless": None, "rises": False, "integer": True, "unit": "bits"}


@pytest.fixture
def compared(example):
    return tables.read(example["mitigations"])


def test_every_mitigation_meets_what_it_repairs(compared):
    pairs = set(zip(compared.mitigation, compared.baseline, compared.sweep_baseline, strict=True))
    assert pairs == {
        ("calibrated_temperature", "none", "magnitude_sparsity~*"),
        ("gradient_aware", "magnitude", "magnitude_sparsity~*"),
        ("gradient_aware", "wanda", "wanda_sparsity~*"),
        ("dynamic_activations", "static_activations", "static_activations_bits~*"),
    }


def test_a_shift_is_the_difference_of_the_thresholds_with_a_paired_interval(compared, example):
    row = compared[(compared.kind == "threshold") & (compared.baseline == "wanda") & (compared.criterion == "kl_0.1")]
    row = row.iloc[0]
    assert row["shift"] == pytest.approx(row.threshold_mitigated - row.threshold_baseline)
    assert 0 < row.shift_low < row["shift"] < row.shift_high and row.verdict == "helps"
    found = tables.read(example["thresholds"])
    wanda = found[(found.sweep == "wanda_sparsity~*") & (found.criterion == "kl_0.1")].iloc[0]
    assert row.threshold_baseline == wanda.threshold
    assert row.shift_high - row.shift_low < wanda.high - wanda.low + 0.02  # pairing keeps it narrow


def test_on_an_integer_axis_the_shift_counts_levels_towards_damage(compared):
    rows = compared[(compared.mitigation == "dynamic_activations") & (compared.kind == "threshold")]
    by_name = {row["criterion"]: row for row in rows.to_dict("records")}
    assert by_name["kl_0.1"]["shift"] == 1 and by_name["kl_0.1"]["shift_state"] == "levels"
    # The baseline is exceeded at 8 bits, but the lower end of its interval is not; the mitigated one lasts to 7.
    assert by_name["kl_0.01"]["shift_state"] == "at least" and by_name["kl_0.01"]["shift_low"] == 1


def sweep(name, levels, axis=BITS):
    slugs = tuple(f"{name}~{level}" for level in levels)
    return Curve("m", f"{name}~*", "", "f", name, axis, "p", np.array(levels, dtype=float), slugs, False)


def measured(damage, half=0.0):
    """Metric rows of the KL of variants, with intervals of ``half`` to each side."""
    shared = {"model": "m", "metric": "kl", "probe": "fidelity", "protocol": "p", "blocks": 16}
    rows = [
        {**shared, "variant": slug, "value": kl, "se": 0.01, "low": kl - half, "high": kl + half}
        for slug, kl in damage.items()
    ]
    return pd.DataFrame(rows)


def lasting(name, levels, last):
    """A sweep over bits whose KL is within the tolerance down to ``last``."""
    return sweep(name, levels), {f"{name}~{bits}": 0.01 if bits >= last else 1.0 for bits in levels}


@pytest.mark.parametrize(
    ("baseline", "mitigated", "shift", "low", "high", "word"),
    [
        (((8, 5, 4, 3), 5), ((8, 6, 4, 3), 6), -1, -1, 0, "no difference"),  # 5 bits were not tried mitigated
        (((10, 8, 6, 4), 8), ((10, 8, 6, 4), 6), 2, 1, 3, "helps"),
        (((8, 7, 6, 5), 7), ((8, 7, 6, 5), 6), 1, 1, 1, "helps"),
        (((8, 6, 4, 2), 6), ((8, 6, 4, 2), 6), 0, -1, 1, "no difference"),
    ],
)
def test_a_shift_in_levels_reaches_over_levels_that_were_not_tested(baseline, mitigated, shift, low, high, word):
    (against, theirs), (curve, ours) = lasting("plain", *baseline), lasting("mended", *mitigated)
    found = mitigations._shift(curve, against, measured({**theirs, **ours}), {}, KL)
    assert (found["shift"], found["shift_low"], found["shift_high"]) == (shift, low, high)
    assert (found["shift_state"], found["verdict"]) == ("levels", word)


def test_a_bound_in_levels_counts_from_the_level_before_the_first_outside():
    levels = (8, 6, 4, 2)
    (against, theirs), (curve, ours) = lasting("plain", levels, 6), lasting("mended", levels, 2)
    found = mitigations._shift(curve, against, measured({**theirs, **ours}), {}, KL)
    assert (found["shift_state"], found["shift_low"], found["verdict"]) == ("at least", 3, "helps")  # 5 may be inside


def test_differences_stand_at_levels_that_both_sides_have(compared):
    rows = compared[(compared.kind == "level") & (compared.criterion == "kl") & (compared.baseline == "magnitude")]
    assert [float(level) for level in rows.level] == [0.1, 0.3, 0.4, 0.5]
    assert ((rows.value_mitigated - rows.value_baseline) - rows.difference).abs().max() < 1e-12
    assert (rows.difference_high < 0).all() and (rows.verdict == "helps").all()


@pytest.mark.parametrize(
    ("low", "high", "good", "word"),
    [
        (0.1, 0.2, 1, "helps"),
        (-0.2, -0.1, 1, "hurts"),
        (-0.2, -0.1, -1, "helps"),
        (-0.1, 0.1, 1, "no difference"),
        (math.nan, math.nan, 1, "undecided"),
        (0.1, math.inf, -1, "hurts"),
    ],
)
def test_the_verdict_says_whether_the_interval_excludes_zero(low, high, good, word):
    assert mitigations.verdict(low, high, good) == word


def test_censored_thresholds_bound_the_shift():
    nan = math.nan
    inside = Threshold(0.3, 0.28, 0.33, 0.2, 0.4, "inside", 5, True)
    beyond = Threshold(nan, 0.5, math.inf, 0.6, nan, "not reached", 5, True)
    # The upper end of the damage crosses at 0.5, before the last level of 0.6; the baseline may last to 0.33.
    helped = mitigations._censored(inside, beyond, 1.0, 0.0)
    assert helped["shift_state"] == "at least" and helped["shift_low"] == pytest.approx(0.17)
    assert helped["verdict"] == "helps"
    hurt = mitigations._censored(beyond, inside, 1.0, 0.0)
    assert hurt["shift_state"] == "at most" and hurt["shift_high"] == pytest.approx(-0.17)
    assert hurt["verdict"] == "hurts"
    assert mitigations._censored(beyond, beyond, 1.0, 0.0)["shift_state"] == "not reached / not reached"


@pytest.fixture
def below(example, tmp_path):
    """The tables of the made-up study with a floor so high that KL 0.01 is below ten times it, and KL 0.1 is not."""
    paths = {**example, "floors": str(tmp_path / "floors.tsv"), "mitigations": str(tmp_path / "mitigations.tsv")}
    tables.write(tables.read(example["floors"]).assign(value=0.002), paths["floors"])
    inputs = [paths[name] for name in ("metrics", "windows", "study")]
    mitigations.compare(*inputs, example_study.CRITERIA, paths["floors"], paths["mitigations"])
    return paths


def test_no_shift_is_judged_at_a_tolerance_below_the_floor(below):
    compared = tables.read(below["mitigations"])
    shifts = compared[compared.kind == "threshold"]
    low, above = (shifts[shifts.criterion == name] for name in ("kl_0.01", "kl_0.1"))
    assert set(low.shift_state) == {"below floor / below floor"} and set(low.verdict) == {"undecided"}
    assert low["shift"].isna().all() and low.shift_low.isna().all() and low.threshold_mitigated.isna().all()
    assert "helps" in set(above.verdict)
    assert "helps" in set(compared[compared.kind == "level"].verdict)  # a difference at equal level has no tolerance


def test_findings_and_figure_say_that_a_shift_is_below_the_floor(below, tmp_path, monkeypatch):
    criteria = {"kl_0.01": example_study.CRITERIA["kl_0.01"]}
    compared = tables.read(below["mitigations"])
    tables.write(compared[compared.criterion == "kl_0.01"], below["mitigations"])
    read = [tables.read(below[name]) for name in ("metrics", "thresholds", "mitigations")]
    told = findings.sentences(*read, below["study"], criteria, statements.read(below["statements"]))
    assert any("KL 0.01 nat cannot be compared (below floor / below floor)" in sentence for sentence in told)

    boxes = []
    monkeypatch.setattr(
        plotting, "save", lambda drawn, *_: boxes.extend(text.get_text() for axes in drawn.axes for text in axes.texts)
    )
    settings, draw = {**example_study.SETTINGS, "criteria": criteria}, plugins.get("figures", "mitigations").module.draw
    draw(below, below["study"], settings, {}, str(tmp_path / "a.svg"), str(tmp_path / "a.png"))
    assert "undecided: below floor / below floor\nat KL 0.01 nat" in boxes


SPARSITY = {"setting": "sparsity", "harmless": None, "rises": True, "integer": False, "unit": "share of weights"}
LEVELS = np.array([0.1, 0.2, 0.4, 0.6])


def judged(baseline, mitigated):
    """What is said of the shift between two (damages, half intervals) over the same sparsities."""
    sides = [
        thresholds.tolerance(LEVELS, np.array(damage), 0.1, np.subtract(damage, half), np.add(damage, half))
        for damage, half in (baseline, mitigated)
    ]
    return [side.state for side in sides], mitigations._censored(*sides, 1.0, 0.0)


KLS = {"plain": [0.01, 0.05, 0.15, 0.3], "mended": [0.01, 0.02, 0.1, 0.3]}
CROSSING = ([0.01, 0.05, 0.15, 0.3], [0.002] * 4)  # at 0.30, with its interval from 0.296 to 0.304


def test_a_curve_that_barely_stays_inside_helps_no_further_than_its_upper_end():
    states, found = judged(CROSSING, ([0.03, 0.08, 0.09, 0.095], [0.01, 0.01, 0.02, 0.025]))
    assert states == ["inside", "not reached"]
    assert found["shift_low"] == pytest.approx(0.3 - 0.304) and found["verdict"] == "undecided"


def test_a_curve_that_starts_barely_outside_hurts_no_more_than_its_lower_end():
    states, found = judged(CROSSING, ([0.11, 0.12, 0.13, 0.3], [0.03, 0.04, 0.04, 0.1]))
    assert states == ["inside", "already exceeded"]
    far = 0.4 + 0.2 * (0.1 - 0.09) / (0.2 - 0.09)  # where the lower end crosses
    assert found["shift_state"] == "at most" and found["shift_high"] == pytest.approx(far - 0.296)
    assert found["verdict"] == "undecided"


def test_a_curve_well_inside_at_the_last_level_is_known_to_reach_it():
    _, found = judged(CROSSING, ([0.01, 0.02, 0.03, 0.04], [0.01] * 4))
    assert found["shift_low"] == pytest.approx(0.6 - 0.304) and found["verdict"] == "helps"


def test_a_bound_that_may_lie_anywhere_is_no_bound():
    _, found = judged(CROSSING, ([0.08, 0.08, 0.08, 0.09], [0.03] * 4))  # its upper end is outside at every level
    assert found == {"shift_state": "inside / not reached"}


def test_without_intervals_no_shift_is_judged():
    nothing = [math.nan] * 4
    states, found = judged(([0.01, 0.05, 0.15, 0.3], nothing), ([0.01, 0.02, 0.03, 0.04], nothing))
    assert states == ["inside", "not reached"] and found == {"shift_state": "no interval"}
    for axis, moved in ((SPARSITY, 0.1), (BITS | {"rises": True}, 0.2)):
        rows = measured(
            {
                f"{name}~{level}": kl
                for name in ("plain", "mended")
                for level, kl in zip(LEVELS, KLS[name], strict=True)
            },
            half=math.nan,
        )
        found = mitigations._shift(sweep("mended", LEVELS, axis), sweep("plain", LEVELS, axis), rows, {}, KL)
        assert found["shift"] == pytest.approx(moved) and math.isnan(found["shift_low"])
        assert (found["shift_state"], found["verdict"]) == ("no interval", "undecided")
        assert wording.shift(found) == wording.signed(moved)
