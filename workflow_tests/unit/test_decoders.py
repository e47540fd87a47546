"""What each decoder does to the scores: distributions by chi-square, limits exactly, settings refused readably."""

import math

import numpy as np
import pytest
import torch

from hemorrhage import plugins
from hemorrhage.decoders import greedy, temperature
from hemorrhage.decoding import noise

LOGITS = [1.0, 0.5, -0.3, 2.0, 0.0, -0.6, 1.7, 0.9]
CRITICAL = 24.32  # chi-square with 7 degrees of freedom, p = 0.001


def draws(scores, count):
    """Tokens drawn from one row of scores, one draw a step."""
    steps = [noise.gumbel([(1, 0)], step, len(scores)) for step in range(count)]
    return (scores.numpy() + np.concatenate(steps)).argmax(1)


@pytest.mark.parametrize("value", [0.5, 1.0, 2.0])
def test_temperature_draws_from_the_softened_softmax(value):
    scores = temperature.scores(torch.tensor([LOGITS]), None, temperature.Settings(value))[0]
    weights = np.array([math.exp(x / value) for x in LOGITS])
    expected = 8000 * weights / weights.sum()
    seen = np.bincount(draws(scores, 8000), minlength=len(LOGITS))
    assert expected.min() > 4
    assert ((seen - expected) ** 2 / expected).sum() < CRITICAL


def test_the_chi_square_sees_a_wrong_temperature():
    scores = temperature.scores(torch.tensor([LOGITS]), None, temperature.Settings(1.15))[0]
    expected = 8000 * np.exp(LOGITS) / np.exp(LOGITS).sum()
    seen = np.bincount(draws(scores, 8000), minlength=len(LOGITS))
    assert ((seen - expected) ** 2 / expected).sum() > CRITICAL


def test_softmax_of_the_scores_is_the_decoders_distribution():
    logits = torch.tensor([LOGITS], dtype=torch.float32) + 500
    scores = temperature.scores(logits, None, temperature.Settings(0.7))
    torch.testing.assert_close(scores.softmax(-1), (logits.double() / 0.7).softmax(-1).float())


def test_temperature_zero_takes_the_first_of_equal_maxima_whatever_the_noise():
    scores = temperature.scores(torch.tensor([[0.0, 3.0, 3.0, 1.0]]), None, temperature.Settings(0))[0]
    assert set(draws(scores, 50)) == {1}


def test_the_smallest_temperature_is_greedy_search_unless_two_are_near():
    scores = temperature.scores(torch.tensor([LOGITS]), None, temperature.Settings(1e-3))[0]
    assert set(draws(scores, 200)) == {3}


@pytest.mark.parametrize("value", [-1, 101, "hot", True, 1e-5, math.nan])
def test_a_bad_temperature_is_refused_by_name(value):
    with pytest.raises(ValueError, match=r"^temperature: "):
        plugins.get("decoders", "temperature").settings({"temperature": value})


def test_a_number_written_as_text_is_read():
    assert temperature.Settings("7e-1").temperature == 0.7


def test_greedy_has_no_settings():
    with pytest.raises(ValueError, match=r"greedy.*unknown setting 'temperature'"):
        plugins.get("decoders", "greedy").settings({"temperature": 1})
    logits = torch.tensor([LOGITS])
    assert torch.equal(greedy.scores(logits, None, greedy.Settings()), logits)
