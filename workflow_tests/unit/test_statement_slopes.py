"""Statements on two slopes of one sweep: answers known from damage written by hand."""

import math

import numpy as np
import pytest
from example_statements import measured, pruned, rounded

from hemorrhage.analysis.statement_slopes import cliffs, two_bits

LEVELS = (0.3, 0.4, 0.5, 0.6, 0.7)
CALM_THEN_STEEP = (0.02, 0.05, 0.09, 0.15, 1.5)


def sweep(damage, levels=LEVELS, spread=0.001):
    rows = zip(levels, damage, strict=True)
    return {f"magnitude_sparsity~{level}": (pruned("magnitude", level), loss, spread) for level, loss in rows}


def counts(tally):
    return len(tally.held), len(tally.failed), len(tally.undecided)


@pytest.mark.parametrize("exponent", [2, 3, 4])
def test_a_power_law_is_no_cliff(exponent, tmp_path):
    damage = [4 * level**exponent for level in LEVELS]
    assert counts(cliffs(measured(sweep(damage), tmp_path))) == (0, 1, 0)


@pytest.mark.parametrize("levels", [(0.05, 0.1, 0.3), (0.1, 0.3, 0.5), (0.1, 0.3, 0.6, 0.9)])
def test_a_power_law_is_no_cliff_between_levels_far_apart_either(levels, tmp_path):
    damage = [0.8 * (level / levels[-1]) ** 4 for level in levels]
    assert counts(cliffs(measured(sweep(damage, levels, 1e-6), tmp_path)))[0] == 0


def test_damage_that_is_calm_up_to_the_level_of_doubled_perplexity_has_a_cliff(tmp_path):
    tally = cliffs(measured(sweep(CALM_THEN_STEEP), tmp_path))
    assert counts(tally) == (1, 0, 0)
    assert tally.held[0] == "magnitude 0.6, then 13.5 nats per unit at 0.7"


def test_damage_that_falls_before_the_cliff_has_one(tmp_path):
    assert counts(cliffs(measured(sweep((0.02, 0.05, 0.09, 0.07, 1.5)), tmp_path))) == (1, 0, 0)


@pytest.mark.parametrize("blocks", [1, 2])
def test_a_cliff_on_too_few_windows_is_undecided(blocks, tmp_path):
    assert counts(cliffs(measured(sweep(CALM_THEN_STEEP, spread=0.05), tmp_path, blocks))) == (0, 0, 1)


def test_windows_that_do_not_tell_the_slope_before_leave_the_cliff_undecided(tmp_path):
    assert counts(cliffs(measured(sweep((0.1, 0.2, 0.3, 0.5, 1.5), spread=0.3), tmp_path))) == (0, 0, 1)


def test_damage_that_becomes_infinite_is_undecided(tmp_path):
    assert counts(cliffs(measured(sweep((*CALM_THEN_STEEP[:4], math.inf)), tmp_path))) == (0, 0, 1)


def test_a_sweep_that_never_doubles_perplexity_is_left_out(tmp_path):
    assert cliffs(measured(sweep(np.array(CALM_THEN_STEEP) / 10), tmp_path)).total == 0


def bits(four, three, two, spread=0.001):
    losses = zip((4, 3, 2), (four, three, two), strict=True)
    return {f"rtn_group~64_bits~{bits}": (rounded("rtn", bits), loss, spread) for bits, loss in losses}


@pytest.mark.parametrize(
    ("losses", "expected"),
    [((0.1, 0.4, 2.0), (1, 0, 0)), ((0.1, 0.9, 1.2), (0, 1, 0)), ((0.1, 0.4, 0.7), (0, 0, 1))],
    ids=["more", "less", "about as much"],
)
def test_from_three_to_two_bits_more_is_lost_by_an_interval(losses, expected, tmp_path):
    assert counts(two_bits(measured(bits(*losses), tmp_path))) == expected


def test_windows_are_paired_so_that_what_they_share_does_not_hide_a_difference(tmp_path):
    hard = np.linspace(0.1, 3, 16)
    assert counts(two_bits(measured(bits(0.1 * hard, 0.3 * hard, 0.6 * hard, 0.0), tmp_path))) == (1, 0, 0)


@pytest.mark.parametrize("losses", [(0.1, 0.4, math.inf), (0.1, math.inf, math.inf)])
def test_a_loss_that_is_infinite_has_no_difference_and_is_undecided(losses, tmp_path):
    tally = two_bits(measured(bits(*losses), tmp_path))
    assert counts(tally) == (0, 0, 1)
    assert "inf nats at 4, 3, 2 bits" in tally.undecided[0]


def test_a_quantizer_without_one_of_the_widths_is_left_out(tmp_path):
    steps = bits(0.1, 0.4, 2.0)
    del steps["rtn_group~64_bits~3"]
    assert two_bits(measured(steps, tmp_path)).total == 0
