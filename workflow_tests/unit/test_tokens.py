"""Token sets: windows that stay, sets that share nothing, and bytes that add up."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import tiny
from hemorrhage.corpus import protocol, tokens
from hemorrhage.corpus.texts import Article

WINDOW = 32
ARTICLE = {"window": WINDOW}
CONTIGUOUS = {"window": WINDOW, "joining": "contiguous"}


@pytest.fixture(scope="module")
def tokenizer():
    return tiny.tokenizer()


@pytest.fixture
def texts():
    many = [Article(f"article {place}", text) for place, text in enumerate(tiny.plain_text(articles=20, words=60))]
    one = Article("one", " ".join(tiny.plain_text(4)))
    return {"news": many, "short": [Article("short", "a few words")], "one": [one]}


def spec(windows, settings=ARTICLE, text="news", **more):
    return {"text": text, "windows": windows, "protocol": settings, **more}


def rows(found):
    return [tuple(row) for row in found.tokens.tolist()]


def reached_by(found, articles, tokenizer):
    """Titles of the articles of which a piece stands in a window."""
    pieces = [piece for row in found.tokens for piece in tokenizer.decode(row).split("\n\n") if len(piece) > 8]
    return {article.title for article in articles if any(piece in article.text for piece in pieces)}


def build(name, specs, texts, tokenizer, seed=1):
    return tokens.build(name, specs, texts, tokenizer, seed)


def test_windows_are_the_first_tokens_of_different_articles(texts, tokenizer):
    found = build("evaluation", {"evaluation": spec(5)}, texts, tokenizer)
    assert found.tokens.shape == (5, WINDOW)
    assert found.tokens.dtype == np.int32
    assert len(set(found.articles)) == 5
    by_title = {article.title: article.text for article in texts["news"]}
    for row, title in zip(found.tokens, found.articles, strict=True):
        expected = tokenizer(by_title[title], add_special_tokens=False)["input_ids"][:WINDOW]
        assert row.tolist() == expected


@pytest.mark.parametrize("joining", ["article", "contiguous"])
def test_sets_share_no_window(texts, tokenizer, joining):
    settings = {"window": WINDOW, "joining": joining}
    specs = {"evaluation": spec(5, settings), "fit": spec(4, settings), "calibration.a": spec(8, settings)}
    sets = {name: build(name, specs, texts, tokenizer) for name in specs}
    for one, other in itertools.combinations(sets.values(), 2):
        assert not set(rows(one)) & set(rows(other))
    assert len(set(rows(sets["calibration.a"]))) == 8


@pytest.mark.parametrize("order", list(itertools.product([ARTICLE, CONTIGUOUS], repeat=3)))
def test_sets_of_mixed_joining_share_no_article(texts, tokenizer, order):
    specs = dict(zip(["evaluation", "fit", "calibration.a"], (spec(3, settings) for settings in order), strict=True))
    sets = {name: build(name, specs, texts, tokenizer) for name in specs}
    unique = [row for found in sets.values() for row in rows(found)]
    assert len(set(unique)) == len(unique)
    reached = [reached_by(found, texts["news"], tokenizer) for found in sets.values()]
    assert all(reached)
    assert not any(one & other for one, other in itertools.combinations(reached, 2))


def test_the_same_text_under_two_names_does_not_leak(texts, tokenizer):
    texts["again"] = [Article(f"copy {place}", article.text) for place, article in enumerate(texts["news"])]
    specs = {"evaluation": spec(10), "calibration.a": spec("all", text="again")}
    evaluation = build("evaluation", specs, texts, tokenizer)
    assert not set(rows(evaluation)) & set(rows(build("calibration.a", specs, texts, tokenizer)))


def test_a_set_does_not_depend_on_calibration_sets_or_later_sets(texts, tokenizer):
    alone = build("calibration.b", {"evaluation": spec(5), "fit": spec(3), "calibration.b": spec(6)}, texts, tokenizer)
    specs = {
        "evaluation": spec(5),
        "fit": spec(3),
        "calibration.a": spec(20),
        "calibration.b": spec(6),
        "calibration.c": spec(2),
    }
    assert build("calibration.b", specs, texts, tokenizer).hash == alone.hash
    assert (
        build("fit", specs, texts, tokenizer).hash
        == build("fit", {"evaluation": spec(5), "fit": spec(3)}, texts, tokenizer).hash
    )


def test_the_seed_decides_and_repeats(texts, tokenizer):
    specs = {"evaluation": spec(5)}
    first, again, other = (build("evaluation", specs, texts, tokenizer, seed).hash for seed in (1, 1, 2))
    assert first == again
    assert first != other


@pytest.mark.parametrize("settings", [ARTICLE, CONTIGUOUS])
def test_a_calibration_seed_of_its_own_changes_the_draw_only(texts, tokenizer, settings):
    specs = {
        "evaluation": spec(5),
        "calibration.a": spec(6, settings, seed=1),
        "calibration.b": spec(6, settings, seed=2),
    }
    assert build("calibration.a", specs, texts, tokenizer).hash != build("calibration.b", specs, texts, tokenizer).hash


def test_calibration_takes_a_second_window_of_an_article_only_after_a_first_of_each(texts, tokenizer):
    found = build("calibration.a", {"calibration.a": spec(30)}, texts, tokenizer)
    assert len(set(found.articles[:20])) == 20
    assert len(set(rows(found))) == 30


def joined(articles, tokenizer):
    """The tokens of articles joined."""
    return tokenizer("\n\n".join(article.text for article in articles), add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("fast", [True, False])
def test_contiguous_windows_are_the_joined_text_and_go_on_with_the_next_article(texts, tokenizer, fast, monkeypatch):
    if not fast:  # a tokenizer that cannot say where its tokens end
        monkeypatch.setattr(type(tokenizer), "is_fast", False)
    specs = {"evaluation": spec(12, CONTIGUOUS), "fit": spec(3, CONTIGUOUS)}
    evaluation, fit = (build(name, specs, texts, tokenizer) for name in specs)
    assert evaluation.tokens.ravel().tolist() == joined(texts["news"], tokenizer)[: 12 * WINDOW]
    reached = len(reached_by(evaluation, texts["news"], tokenizer))
    assert 1 < reached < 12
    assert fit.tokens.ravel().tolist() == joined(texts["news"][reached:], tokenizer)[: 3 * WINDOW]
    assert fit.articles[0] == f"article {reached}"


def test_contiguous_sets_of_a_text_that_is_one_article_are_pieces_that_do_not_overlap(texts, tokenizer):
    specs = {"evaluation": spec(4, CONTIGUOUS, "one"), "fit": spec(3, CONTIGUOUS, "one")}
    evaluation, fit = (build(name, specs, texts, tokenizer) for name in specs)
    stream = joined(texts["one"], tokenizer)
    assert np.concatenate([evaluation.tokens.ravel(), fit.tokens.ravel()]).tolist() == stream[: 7 * WINDOW]


@pytest.mark.parametrize("name", ["fit", "calibration.a"])
def test_nothing_is_left_where_contiguous_windows_reach_into_the_last_article(texts, tokenizer, name):
    windows = len(joined(texts["news"], tokenizer)) // WINDOW
    specs = {"evaluation": spec(windows - 2, CONTIGUOUS), name: spec(1, CONTIGUOUS)}
    with pytest.raises(ValueError, match=f"tokens.{name}: 1 .*pieces .* has 0 left"):
        build(name, specs, texts, tokenizer)


def test_all_windows_of_one_file_can_be_taken(texts, tokenizer):
    found = build("evaluation", {"evaluation": spec("all", CONTIGUOUS, "one")}, texts, tokenizer)
    stream = tokenizer(texts["one"][0].text, add_special_tokens=False)["input_ids"]
    assert found.tokens.shape[0] == len(stream) // WINDOW


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({**CONTIGUOUS, "scored": "all"}, [31, 31, 31]),
        ({**CONTIGUOUS, "scored": "second_half"}, [15, 15, 15]),
        ({**CONTIGUOUS, "scored": "new", "stride": 8}, [31, 8, 8]),
        ({**CONTIGUOUS, "scored": "new", "stride": 31}, [31, 31, 31]),
        ({**CONTIGUOUS, "scored": "all", "bos": True}, [32, 32, 32]),
        ({**CONTIGUOUS, "scored": "second_half", "bos": True}, [15, 15, 15]),
        ({**CONTIGUOUS, "scored": "new", "stride": 8, "bos": True}, [32, 8, 8]),
    ],
)
def test_scored_positions_end_with_the_window(texts, tokenizer, settings, expected):
    found = build("evaluation", {"evaluation": spec(3, settings)}, texts, tokenizer)
    assert found.scored.sum(axis=1).tolist() == expected
    assert not found.scored[:, 0].any()
    for row, count in zip(found.scored, expected, strict=True):
        assert row[-count:].all()


def test_new_scores_every_token_once(texts, tokenizer):
    settings = {**CONTIGUOUS, "scored": "new", "stride": 8}
    found = build("evaluation", {"evaluation": spec("all", settings, "one")}, texts, tokenizer)
    stream = tokenizer(texts["one"][0].text, add_special_tokens=False)["input_ids"]
    scored = np.concatenate([row[mask] for row, mask in zip(found.tokens, found.scored, strict=True)])
    assert scored.tolist() == stream[1 : 1 + len(scored)]


@pytest.mark.parametrize("bos", [False, True])
@pytest.mark.parametrize(
    "settings",
    [ARTICLE, CONTIGUOUS, {**CONTIGUOUS, "scored": "new", "stride": 8}, {**CONTIGUOUS, "scored": "second_half"}],
)
def test_bytes_are_those_of_the_scored_text(texts, tokenizer, settings, bos):
    found = build("evaluation", {"evaluation": spec(5, {**settings, "bos": bos})}, texts, tokenizer)
    for row, mask, size in zip(found.tokens, found.scored, found.bytes, strict=True):
        assert len(tokenizer.decode(row[mask]).encode()) == size


def test_bos_stands_before_the_text(texts, tokenizer):
    plain = build("evaluation", {"evaluation": spec(3)}, texts, tokenizer)
    found = build("evaluation", {"evaluation": spec(3, {**ARTICLE, "bos": True})}, texts, tokenizer)
    assert (found.tokens[:, 0] == tokenizer.bos_token_id).all()
    assert (found.tokens[:, 1:] == plain.tokens).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            spec(16, text="short"),
            "16 articles with 32 tokens each are needed, but text 'short' has 0 left .*contiguous",
        ),
        (
            spec("all", CONTIGUOUS, "short"),
            "1 consecutive pieces with 32 tokens each are needed, but text 'short' has 0",
        ),
        (spec(21), "21 articles .* has 20 left"),
        (spec(3, text="nws"), "Did you mean 'news'"),
        (spec(0), "tokens.evaluation.windows: 0"),
        (spec(3, {"windw": 3}), "tokens.evaluation: unknown protocol setting 'windw'"),
    ],
)
def test_what_cannot_be_is_one_sentence(texts, tokenizer, change, message):
    with pytest.raises(ValueError, match=message) as caught:
        build("evaluation", {"evaluation": change}, texts, tokenizer)
    assert "\n" not in str(caught.value)


def test_bos_is_refused_where_there_is_none(texts):
    tokenizer = tiny.tokenizer()
    tokenizer.bos_token = None
    with pytest.raises(ValueError, match="asks for BOS"):
        build("evaluation", {"evaluation": spec(3, {**ARTICLE, "bos": True})}, texts, tokenizer)


def test_saved_sets_are_byte_equal_and_come_back(texts, tokenizer, tmp_path):
    specs = {"evaluation": spec(3, protocol.NAMED["gptq-2048"].as_dict() | CONTIGUOUS | {"stride": WINDOW})}
    found = build("evaluation", specs, texts, tokenizer)
    for name in ("a.npz", "b.npz"):
        found.save(tmp_path / name)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    loaded = tokens.TokenSet.load(tmp_path / "a.npz")
    assert (loaded.hash, loaded.articles, loaded.meta) == (found.hash, found.articles, found.meta)
    assert loaded.protocol.joining == "contiguous"
    assert (loaded.bytes == found.bytes).all()


def test_a_changed_file_is_noticed(texts, tokenizer, tmp_path):
    found = build("evaluation", {"evaluation": spec(3)}, texts, tokenizer)
    found.tokens[0, 0] += 1
    found.save(tmp_path / "a.npz")
    with pytest.raises(ValueError, match="not those that it records"):
        tokens.TokenSet.load(tmp_path / "a.npz")
