"""The tasks that are built at run time: what an item must be, and that the same seed makes the same ones."""

import collections
import re

import numpy as np
import pytest
from example_articles import ARTICLES

import tiny
from hemorrhage.corpus import unseen
from hemorrhage.corpus.texts import Article
from hemorrhage.corpus.tokens import TokenSet
from hemorrhage.tasks import agreement, continuation, last_word, passages

BUILDERS = {module.NAME: module.build for module in (agreement, continuation, last_word)}


@pytest.mark.parametrize("name", BUILDERS)
def test_the_same_seed_makes_the_same_items_and_another_seed_others(name):
    first, second, other = (BUILDERS[name](ARTICLES, 20, seed) for seed in (1, 1, 2))
    assert first == second
    assert first != other
    assert len({str(item) for item in first}) == 20


@pytest.mark.parametrize("name", [continuation.NAME, last_word.NAME])
def test_items_do_not_depend_on_the_order_of_the_articles_and_come_from_all(name):
    items = BUILDERS[name](ARTICLES, 8, 1)
    assert items == BUILDERS[name]([*reversed(ARTICLES), ARTICLES[0]], 8, 1)
    sources = [[a.title for a in ARTICLES if item["text"] in a.text] for item in items]
    assert collections.Counter(title for titles in sources for title in titles) == {a.title: 2 for a in ARTICLES}


@pytest.mark.parametrize("name", BUILDERS)
def test_more_items_than_there_are_is_refused_with_their_number(name):
    with pytest.raises(ValueError, match=rf"100000 items of {name} are asked for.* \d+"):
        BUILDERS[name](ARTICLES, 100_000, 1)


def test_the_last_word_ends_the_passage_and_stands_earlier_in_it():
    for item in last_word.build(ARTICLES, 20, 1):
        target = item["target"].removeprefix(" ")
        assert item["target"] == f" {target}"
        assert any(f"{item['text']} {target}." in article.text for article in ARTICLES)
        words = item["text"].split()
        assert target in words[: -last_word.NEAREST]
        assert all(target not in word for word in words[-last_word.NEAREST :])
        assert last_word.FEWEST_WORDS <= len(words) + 1 <= last_word.MOST_WORDS
        assert item["chance"] == 1 / len(set(re.findall("[A-Za-z]{5,}", item["text"])))


def test_the_true_continuation_follows_and_the_false_ones_stand_elsewhere_in_the_article():
    items = continuation.build(ARTICLES, 40, 1)
    for item in items:
        source = next(article for article in ARTICLES if item["text"] in article.text)
        assert [f"{item['text']} {choice}" in source.text for choice in item["choices"]].index(True) == item["gold"]
        assert all(choice in source.text and choice not in item["text"] for choice in item["choices"])
        assert [len(choice.split()) for choice in item["choices"]] == [continuation.FOLLOWING] * 3
        assert len(item["text"].split()) == continuation.CONTEXT
    assert set(collections.Counter(item["gold"] for item in items)) == {0, 1, 2}


DIFFERING = {
    "copula": [{"is", "are"}, {"was", "were"}],
    "verb": [set(pair) for pair in agreement.ACTS],
    "determiner_noun": [set(pair) for pair in (*agreement.PEOPLE, *agreement.THINGS)],
    "reflexive_number": [{"himself", "themselves"}, {"herself", "themselves"}],
    "reflexive_gender": [{"himself", "herself"}],
}


def test_agreement_pairs_differ_in_exactly_the_intended_word():
    for item in agreement.build([], 400, 1):
        sides = [sentence.removesuffix(".").split() for sentence in item["choices"]]
        assert len(sides[0]) == len(sides[1])
        differing = [pair for pair in zip(*sides, strict=True) if pair[0] != pair[1]]
        assert len(differing) == 1
        assert set(differing[0]) in DIFFERING[item["kind"]]


def number(word):
    """0 for a singular noun, 1 for a plural one."""
    pairs = (*agreement.PEOPLE, *agreement.THINGS, *agreement.MALE, *agreement.FEMALE)
    return next(pair.index(word) for pair in pairs if word in pair)


def is_right(kind, sentence):
    """The grammar once more, read from the sentence."""
    words = sentence.removesuffix(".").split()
    if kind == "copula":
        return number(words[1]) == ({"is", "was", "are", "were"} & set(words) <= {"are", "were"})
    if kind == "verb":
        return number(words[1]) == any(plural in words for _, plural in agreement.ACTS)
    if kind == "determiner_noun":
        return number(words[-1]) == (words[2] in ("these", "those"))
    subject, reflexive = words[1], next(word for word in words if word.endswith(("self", "selves")))
    gender = "herself" if any(subject in pair for pair in agreement.FEMALE) else "himself"
    return reflexive == ("themselves" if number(subject) else gender)


def test_the_right_sentence_is_the_grammatical_one_and_its_place_tells_nothing():
    items = agreement.build([], 400, 1)
    for item in items:
        assert [is_right(item["kind"], sentence) for sentence in item["choices"]].index(True) == item["gold"], item
        assert not is_right(item["kind"], item["choices"][1 - item["gold"]]), item
    assert 0.4 < np.mean([item["gold"] for item in items]) < 0.6
    assert set(collections.Counter(item["kind"] for item in items).values()) == {400 // len(agreement.KINDS)}


def test_sentences_end_where_a_capital_follows():
    found = passages.sentences(" One two. Three?  Four 1.5 is. ")
    assert found == [["One", "two."], ["Three?"], ["Four", "1.5", "is."]]


def test_articles_that_a_window_touches_are_left_out():
    tokenizer = tiny.tokenizer()
    found = [
        Article("a", "the men are in the land" * 3),
        Article("b", "some other people said that it was so"),
        Article("c", "nobody has seen this one at all, not even in part"),
        Article("a", "the title is in the set"),
    ]
    joined = tokenizer("the men are in the land\n\nsome other people said that it was so\n\nmo")["input_ids"]
    row = np.array([joined], dtype=np.int32)
    seen = TokenSet(row, np.ones(row.shape, dtype=bool), np.array([1]), ["a"], {})
    assert [article.text[:6] for article in unseen.untouched(found, [seen], tokenizer)] == ["nobody"]
    assert unseen.untouched(found, [], tokenizer) == found
