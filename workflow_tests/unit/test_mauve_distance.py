"""The distance of two sets of texts as distributions: exact at its ends, silent where it means nothing."""

import numpy as np
import pytest

from hemorrhage.decoding import mauve_distance


def features(seed, prompts=40, seeds=2, shift=0.0):
    return np.random.default_rng(seed).standard_normal((prompts, seeds, 16)).astype(np.float32) + shift


def test_a_set_is_at_no_distance_from_itself():
    assert mauve_distance.distance(features(0), features(0)) == 0


def test_too_few_texts_say_nothing():
    few = features(0, prompts=mauve_distance.FEWEST // 2 - 1)
    assert mauve_distance.estimate(few, few) is None


def test_without_the_package_nothing_is_said(monkeypatch):
    monkeypatch.setattr(mauve_distance, "PACKAGE", "a_package_that_nobody_has")
    assert mauve_distance.estimate(features(0), features(1)) is None


def test_far_sets_are_far_and_alike_sets_near_with_an_interval():
    pytest.importorskip("mauve", reason="mauve-text is not installed; `make peers` brings it")
    alike = mauve_distance.estimate(features(0), features(1))
    apart = mauve_distance.estimate(features(0), features(1, shift=3.0))
    assert alike.value < 0.3 < 0.9 < apart.value
    assert alike.low <= alike.value <= alike.high and (alike.n, alike.blocks) == (80, 40)
    assert mauve_distance.estimate(features(0), features(1)) == alike


def test_empty_texts_are_left_out():
    pytest.importorskip("mauve", reason="mauve-text is not installed; `make peers` brings it")
    with_gaps = features(0)
    with_gaps[0] = np.nan
    assert mauve_distance.distance(with_gaps, features(1)) == mauve_distance.distance(with_gaps[1:], features(1))
