"""Measures of single texts and sets of them, on texts whose value is known."""

import math

import pytest

from hemorrhage.decoding import text_measures


@pytest.mark.parametrize(
    ("tokens", "n", "expected"),
    [
        ([1, 2, 3, 4], 2, 0),
        ([1, 2, 1, 2], 2, 1 / 3),
        ([7] * 5, 2, 3 / 4),
        ([7] * 5, 4, 1 / 2),
        ([1], 2, 0),
        ([], 3, 0),
    ],
)
def test_repetition_is_the_share_of_ngrams_seen_before(tokens, n, expected):
    assert text_measures.repetition(tokens, n) == pytest.approx(expected)


def test_distinct_counts_all_texts_together():
    assert text_measures.distinct([[1, 2], [1, 2]], 1) == 0.5
    assert text_measures.distinct([[1, 2], [3, 4]], 2) == 1
    assert text_measures.distinct([[], [1]], 2) == 0


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ([], [], 0),
        ([1], [], 1),
        ([1, 2, 3], [1, 2, 3], 0),
        ([1, 2, 3, 4], [1, 3, 4], 1 / 4),
        ([1, 2], [3, 4], 1),
        ([1, 2, 3, 4], [2, 3, 4, 1], 1 / 2),
        ("kitten", "sitting", 3 / 7),
    ],
)
def test_edit_distance_is_levenshteins_over_the_longer(a, b, expected):
    assert text_measures.edit_distance(a, b) == text_measures.edit_distance(b, a) == pytest.approx(expected)


def test_bleu_equals_a_peer():
    sacrebleu = pytest.importorskip("sacrebleu")
    text = ["the", "cat", "sat", "on", "the", "mat", "today"]
    others = [["the", "cat", "sat", "on", "a", "mat"], ["a", "dog", "sat", "there"]]
    ids = {word: i for i, word in enumerate(sorted({*text, *others[0], *others[1]}))}
    own = text_measures.bleu([ids[w] for w in text], [[ids[w] for w in other] for other in others])
    peer = sacrebleu.sentence_bleu(
        " ".join(text), [" ".join(other) for other in others], smooth_method="add-k", smooth_value=1, tokenize="none"
    )
    assert own == pytest.approx(peer.score / 100, abs=1e-6)


def test_self_bleu_sees_texts_that_say_the_same():
    assert text_measures.self_bleu([list(range(20))] * 3) == pytest.approx([1, 1, 1])
    assert max(text_measures.self_bleu([list(range(20)), list(range(30, 50))])) == 0
    assert math.isnan(text_measures.self_bleu([[1, 2, 3]])[0])


@pytest.mark.parametrize(
    ("tokens", "share"),
    [
        ([1, 2, 3, 4, 5, 6], 0),
        ([1, 2, 9, 9, 9, 9], 4 / 6),
        ([5, 1, 2, 1, 2, 1, 2, 1], 7 / 8),
        ([1, 2, 1, 2], 0),
        ([], 0),
    ],
)
def test_a_loop_is_what_the_end_repeats_three_times(tokens, share):
    assert text_measures.looping(tokens) == pytest.approx(share)


@pytest.mark.parametrize(
    ("tokens", "finished", "excess", "word"),
    [
        (list(range(12)), False, 0.0, "same"),
        ([0, 1] + [5] * 10, False, 9.0, "loop"),
        ([0, 3], True, 0.0, "early stop"),
        (list(range(20, 32)), False, 4.0, "garble"),
        (list(range(20, 32)), False, 0.5, "drift"),
        (list(range(20, 32)), False, float("nan"), "drift"),
    ],
)
def test_failures_have_a_class(tokens, finished, excess, word):
    assert text_measures.failure(tokens, list(range(12)), finished, excess) == word
