"""Intervals: coverage in simulation, pairing, exact data, data without a number."""

import math

import numpy as np
import pytest

from hemorrhage.analysis import statistics

BLOCKS, TOKENS = 16, 32


def _coverage(seed, interval, repeats=600):
    """Share of intervals that hold the true mean 1 of skewed tokens which share a lognormal factor per window."""
    generator = np.random.default_rng(seed)
    hits = 0
    for _ in range(repeats):
        factor = np.exp(0.5 * generator.standard_normal(BLOCKS) - 0.125)
        tokens = generator.gamma(0.3, 1 / 0.3, (BLOCKS, TOKENS)) * factor[:, None]
        low, high = interval(tokens)
        hits += low <= 1 <= high
    return hits / repeats


def test_bootstrap_t_covers_skewed_and_correlated_losses_and_the_token_interval_does_not():
    index = statistics.index_matrix("model", "evaluation", BLOCKS)
    counts = np.full(BLOCKS, TOKENS)

    def ours(tokens):
        found = statistics.mean_interval(tokens.sum(1), counts, index)
        return found.low, found.high

    def naive(tokens):
        half = 1.96 * tokens.std(ddof=1) / math.sqrt(tokens.size)
        return tokens.mean() - half, tokens.mean() + half

    assert 0.92 <= _coverage(1, ours) <= 0.97
    assert _coverage(1, naive) < 0.85


def test_data_without_spread_have_an_interval_of_exactly_the_value():
    index = statistics.index_matrix("model", "evaluation", BLOCKS)
    counts = np.array([255, 251] * 8)
    for value in (0.0, 1.0):
        found = statistics.mean_interval(value * counts, counts, index)
        assert (found.value, found.se, found.low, found.high) == (value, 0.0, value, value)


@pytest.mark.parametrize(("n", "share"), [(1, 0.975), (8, 0.36942), (10, 0.30850), (100, 0.03622)])
def test_a_kind_that_no_draw_held_may_have_the_share_of_the_exact_binomial_interval(n, share):
    found = statistics.unseen_share(n)
    assert found == pytest.approx(share, abs=1e-5)
    assert (1 - found) ** n == pytest.approx(0.025)


@pytest.mark.parametrize(
    ("value", "bounds", "low", "high"),
    [
        (0.0, (0.0, 1.0), 0.0, 0.36942),
        (1.0, (0.0, 1.0), 0.63058, 1.0),
        (0.0, (-1.0, 1.0), -0.36942, 0.36942),
        (1.0, (-1.0, 1.0), 1 - 2 * 0.36942, 1.0),
    ],
)
def test_drawn_items_that_all_agree_leave_room_for_others(value, bounds, low, high):
    index = statistics.index_matrix("model", "items", 8)
    found = statistics.mean_interval(np.full(8, value), np.ones(8), index, bounds, bernoulli=True)
    assert (found.value, math.isnan(found.se)) == (value, True)
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-5)


def test_drawn_items_that_differ_have_the_interval_of_any_mean():
    items, index = np.array([1.0, 0, 0, 1, 1, 0, 1, 0]), statistics.index_matrix("model", "items", 8)
    sides = [statistics.mean_interval(items, np.ones(8), index, (0, 1), bernoulli) for bernoulli in (True, False)]
    assert sides[0] == sides[1]


def test_windows_count_by_their_tokens():
    found = statistics.mean_interval(np.array([10.0, 0.0, 2.0]), np.array([10, 30, 0]))
    assert found.value == pytest.approx(10 / 40)
    assert found.n == 40 and found.blocks == 2


@pytest.mark.parametrize("bad", [math.inf, math.nan])
def test_one_window_without_a_number_makes_the_mean_infinite(bad):
    found = statistics.mean_interval(np.array([1.0, bad, 2.0]), np.ones(3))
    assert found.value == math.inf and math.isnan(found.low) and math.isnan(found.high)


def test_pairing_removes_what_windows_share():
    generator = np.random.default_rng(0)
    hardness, counts = 100 * generator.random(BLOCKS), np.full(BLOCKS, 10.0)
    baseline = hardness + 0.01 * generator.standard_normal(BLOCKS)
    index = statistics.index_matrix("model", "evaluation", BLOCKS)
    paired = statistics.paired_difference(hardness + 1, baseline, counts, index)
    assert paired.value == pytest.approx(0.1, abs=0.01)
    assert paired.se < statistics.mean_interval(hardness, counts, index).se / 100


def test_a_difference_with_an_infinite_side_keeps_its_sign():
    fine, broken, counts = np.ones(4), np.array([1, np.inf, 1, 1]), np.ones(4)
    assert statistics.paired_difference(broken, fine, counts).value == math.inf
    assert statistics.paired_difference(fine, broken, counts).value == -math.inf
    assert math.isnan(statistics.paired_difference(broken, broken, counts).value)


def test_the_index_matrix_depends_on_names_only():
    one, same = (statistics.index_matrix("a", "evaluation", 8) for _ in range(2))
    other = statistics.index_matrix("b", "evaluation", 8)
    assert (one == same).all() and (one != other).any()
    assert one.shape == (statistics.RESAMPLES, 8) and one.min() == 0 and one.max() == 7


def test_few_or_degenerate_windows_fall_back_to_student():
    counts = np.ones(4)
    found = statistics.mean_interval(np.array([1.0, 2.0, 3.0, 4.0]), counts, statistics.index_matrix("m", "e", 4))
    half = 3.182446 * np.std([1, 2, 3, 4], ddof=1) / 2
    assert (found.low, found.high) == pytest.approx((2.5 - half, 2.5 + half), rel=1e-5)
    lone = np.zeros(16)
    lone[3] = 1.0  # a third of the resamples miss the only window that differs
    found = statistics.mean_interval(lone, np.ones(16), statistics.index_matrix("m", "e", 16))
    assert found.high - found.value == pytest.approx(found.value - found.low)


@pytest.mark.parametrize(
    ("dof", "expected"), [(1, 12.706205), (2, 4.302653), (7, 2.364624), (15, 2.131450), (30, 2.042272)]
)
def test_student_quantiles(dof, expected):
    assert statistics.t_quantile(0.975, dof) == pytest.approx(expected, rel=1e-6)


def test_bounds_cut_the_interval():
    sums = np.array([255.0] * 15 + [100.0])
    found = statistics.mean_interval(sums, np.full(16, 255.0), bounds=(0, 1))
    assert found.high <= 1.0


def test_jackknife_of_a_mean_is_its_standard_error():
    values = np.random.default_rng(0).random(12)
    deleted = (values.sum() - values) / 11
    se, low, high = statistics.jackknife_interval(values.mean(), deleted)
    assert se == pytest.approx(values.std(ddof=1) / math.sqrt(12))
    assert low < values.mean() < high
    assert math.isnan(statistics.jackknife_interval(1.0, np.array([1.0, math.nan]))[0])


def test_the_paired_error_over_the_unpaired_one():
    assert statistics.paired_unpaired_ratio(1.0, 3.0, 4.0) == pytest.approx(0.2)
    assert math.isnan(statistics.paired_unpaired_ratio(0.0, 0.0, 0.0))
    assert math.isnan(statistics.paired_unpaired_ratio(1.0, math.nan, 1.0))
