"""Texts as articles: prose and nothing else."""

from __future__ import annotations

import bz2
import json

import pytest

from hemorrhage.corpus import texts, wikipedia

SENTENCE = "This sentence is long enough to be taken for a part of the prose of an article."
PAGE = "<page><title>{title}</title><ns>{ns}</ns>{redirect}<revision><text>{text}</text></revision></page>"


def write_dump(path, *pages):
    body = "".join(PAGE.format(**{"ns": 0, "redirect": "", "text": SENTENCE, **page}) for page in pages)
    content = f'<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.10/">{body}</mediawiki>'.encode()
    path.write_bytes(bz2.compress(content) if path.suffix == ".bz2" else content)
    return path


@pytest.mark.parametrize("name", ["dump.bz2", "dump.xml"])
def test_redirects_and_other_namespaces_are_no_articles(tmp_path, name):
    path = write_dump(
        tmp_path / name,
        {"title": "A"},
        {"title": "B", "redirect": '<redirect title="A" />'},
        {"title": "Talk:A", "ns": 1},
        {"title": "C", "text": "short"},
    )
    assert texts.articles(path, "wikipedia_dump") == [texts.Article("A", SENTENCE)]


@pytest.mark.parametrize(
    "gone",
    [
        "{| class=wikitable\n|-\n| cell of a table\n|}",
        "* a list item that is long enough to be taken for prose, with a full stop.",
        "# a numbered item that is long enough to be taken for prose, with a full stop.",
        ": an indented line that is long enough to be taken for prose, with a full stop.",
        "== A heading that is long enough to be taken for prose, with a full stop. ==",
        "<math>x^2</math> is a formula in a line that is long enough to be taken for prose.",
        "{{Infobox|name=a|text=This sentence is long enough to be taken for a part of the prose.}}",
        "[[File:a.jpg|thumb|A caption that is long enough to be taken for a part of the prose.]]",
        "[[Category:Things that are long enough to be taken for a part of the prose of an article.]]",
        "<gallery>\na.jpg|A caption that is long enough to be taken for a part of the prose.\n</gallery>",
        "A line with markup that is {{broken and long enough to be taken for a part of the prose.",
        "<!-- A comment that is long enough to be taken for a part of the prose of an article. -->",
    ],
)
def test_what_is_no_prose_goes(gone):
    assert wikipedia.prose(f"{SENTENCE}\n\n{gone}\n\n{SENTENCE}") == f"{SENTENCE}\n\n{SENTENCE}"


@pytest.mark.parametrize(
    ("markup", "prose"),
    [
        (
            "'''Algeria''' ({{lang-ar|x}}; ''{{IPA|y}}'') is a [[country|sovereign state]]<ref>z</ref> of [[Africa]] "
            "&amp; more, which is long.",
            "Algeria is a sovereign state of Africa & more, which is long.",
        ),
        (
            "The town lies {{convert|12|km}} from the [http://a.org river], and {{lang|fr|ville}} is its word in "
            "French.",
            "The town lies 12 km from the river, and ville is its word in French.",
        ),
        (
            "One ampere is about 6.241 × 10<sup>18</sup> elementary charges each second, H<sub>2</sub>O is water.",
            "One ampere is about 6.241 × 10^18 elementary charges each second, H2O is water.",
        ),
    ],
)
def test_words_inside_a_sentence_stay(markup, prose):
    assert wikipedia.prose(markup) == prose


def test_a_file_that_is_no_dump_is_refused(tmp_path):
    (tmp_path / "a.bz2").write_bytes(b"nothing of the kind")
    with pytest.raises(ValueError, match="not a Wikipedia pages-articles dump"):
        texts.articles(tmp_path / "a.bz2", "wikipedia_dump")


def test_of_a_play_the_spoken_words_stay(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "the-play.md").write_text(
        "# The Play\n\n## ACT I\n\n_Enter A,\nwith B_\n\n**A**  \nWho's _[Aside]_ there?  \nNay, & c.\n\n"
        "**B** _[Within]_  \n\\[Aloud] _I_.\n\n_Exit_\n\nMore words.\n\n**C**  \n_[Sleeps]_\n"
    )
    (article,) = texts.articles(tmp_path, "plays")
    assert article.title == "The Play"
    assert article.text == "A:\nWho's there?\nNay, &c.\n\nB:\nI.\n\nMore words."


def test_a_plain_text_is_one_article_byte_for_byte(tmp_path):
    (tmp_path / "a.txt").write_bytes(b" one\r\n\r\ntwo \n")
    assert texts.articles(tmp_path / "a.txt", "plain") == [texts.Article("a", " one\r\n\r\ntwo \n")]


def test_a_line_of_jsonl_is_an_article(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "one"}\n\n{"text": "two", "title": "T"}\n')
    assert texts.articles(tmp_path / "a.jsonl", "jsonl") == [texts.Article("a 1", "one"), texts.Article("T", "two")]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2: not valid JSON"),
        ('{"txt": "a"}', "line 2: no text under"),
    ],
)
def test_a_wrong_line_of_jsonl_is_named(tmp_path, line, message):
    (tmp_path / "a.jsonl").write_text(f'{{"text": "one"}}\n{line}\n')
    with pytest.raises(ValueError, match=message):
        texts.articles(tmp_path / "a.jsonl", "jsonl")


def test_rows_of_a_data_set_keep_their_order_and_empty_rows(tmp_path, monkeypatch):
    pytest.importorskip("datasets")
    rows = ["one", "", "two"]
    (tmp_path / "test-0.jsonl").write_text("".join(json.dumps({"page": row}) + "\n" for row in rows))
    found = texts.articles(tmp_path / "test-0.jsonl", "dataset", column="page")
    assert [article.text for article in found] == rows
    with pytest.raises(ValueError, match=r"unknown column in .* 'text'"):
        texts.articles(tmp_path, "dataset")


def test_bad_texts_are_refused(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="not UTF-8"):
        texts.articles(tmp_path / "a.txt", "plain")
    (tmp_path / "b.txt").write_text("\n")
    with pytest.raises(ValueError, match="no article was found"):
        texts.articles(tmp_path / "b.txt", "plain")
    with pytest.raises(ValueError, match="Did you mean 'plain'"):
        texts.articles(tmp_path / "b.txt", "plan")
