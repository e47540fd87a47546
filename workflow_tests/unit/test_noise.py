"""The noise is Gumbel, and depends on seed, prompt, step and token only."""

import numpy as np
import pytest

from hemorrhage.decoding import noise

EULER = 0.5772156649015329


def test_the_place_in_the_batch_does_not_matter():
    together = noise.gumbel([(1, 0), (1, 5), (2, 5)], step=3, vocabulary=100)
    alone = noise.gumbel([(1, 5)], step=3, vocabulary=100)
    assert np.array_equal(together[1], alone[0])


def test_a_larger_vocabulary_keeps_the_noise_of_the_first_tokens():
    small, large = (noise.gumbel([(1, 0)], 0, size) for size in (101, 4096))
    assert np.array_equal(large[:, :101], small)


def test_seed_prompt_and_step_each_change_the_noise():
    base = noise.gumbel([(1, 2)], 3, 1000)[0]
    for key, step in [((2, 2), 3), ((1, 3), 3), ((1, 2), 4), ((2, 1), 3)]:
        other = noise.gumbel([key], step, 1000)[0]
        assert abs(np.corrcoef(base, other)[0, 1]) < 0.15
        assert not np.isin(other, base).any()


def test_values_are_those_of_a_gumbel_distribution():
    values = noise.gumbel([(seed, 0) for seed in range(10)], 0, 20000).ravel().astype(np.float64)
    assert np.isfinite(values).all()
    assert abs(values.mean() - EULER) < 0.01
    assert abs(values.var() - np.pi**2 / 6) < 0.03
    for point in (-1.0, 0.0, 1.0, 4.0):
        assert abs((values < point).mean() - np.exp(-np.exp(-point))) < 0.004


def test_the_stream_is_the_same_in_every_version():
    expected = [3.01506305, 0.43076760, -1.09774363, 0.47722700]
    np.testing.assert_allclose(noise.gumbel([(7, 11)], 13, 4)[0], expected, rtol=1e-6)


@pytest.mark.parametrize("spread", [0.0, 0.1, 3.0, 30.0])
@pytest.mark.parametrize("kept", [None, 1, 50])
def test_a_draw_is_the_argmax_with_all_the_noise(spread, kept):
    keys, logits = [(1, row) for row in range(20)], spread * np.random.default_rng(0).standard_normal((20, 5000))
    scores = logits.astype(np.float32)
    if kept:
        scores[:, kept:] = -np.inf
    for step in range(5):
        expected = (scores + noise.gumbel(keys, step, 5000)).argmax(-1)
        np.testing.assert_array_equal(noise.draw(scores, keys, step), expected)


def test_a_draw_from_no_token_and_from_enormous_scores():
    keys = [(1, 0), (1, 1)]
    scores = np.array([[-np.inf] * 4, [0, 8e37, 8e37, -np.inf]], dtype=np.float32)
    expected = (scores + noise.gumbel(keys, 0, 4)).argmax(-1)
    np.testing.assert_array_equal(noise.draw(scores, keys, 0), expected)


def test_another_stream_draws_another_token():
    scores, keys = np.zeros((50, 1000), dtype=np.float32), [(1, row) for row in range(50)]
    assert (noise.draw(scores, keys, 0) != noise.draw(scores, keys, 0, stream=1)).mean() > 0.9
