"""Prompts come from the evaluation windows or a file, are fixed and hashed, and are refused readably."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

import tiny
from hemorrhage.corpus import prompts


@pytest.fixture(scope="module")
def tokenizer():
    return tiny.tokenizer()


def windows(count=3, length=10):
    return SimpleNamespace(tokens=np.arange(4, 4 + count * length, dtype=np.int32).reshape(count, length))


def test_prompts_are_the_beginnings_of_the_first_windows(tokenizer):
    made = prompts.from_tokens(windows(), tokenizer, count=2, length=4)
    assert [prompt.tokens for prompt in made] == [(4, 5, 6, 7), (14, 15, 16, 17)]
    assert [prompt.id for prompt in made] == [0, 1]
    assert made[0].text == tokenizer.decode([4, 5, 6, 7])


def test_the_hash_is_of_the_tokens_only(tokenizer):
    first = prompts.from_tokens(windows(), tokenizer, 2, 4)
    again = prompts.from_tokens(windows(), tokenizer, 1, 4)
    longer = prompts.from_tokens(windows(), tokenizer, 1, 5)
    assert first[0].hash == again[0].hash
    assert len({first[0].hash, first[1].hash, longer[0].hash}) == 3


@pytest.mark.parametrize(("count", "length", "word"), [(4, 4, "3 windows"), (2, 11, "window has 10")])
def test_more_than_there_is_is_refused(tokenizer, count, length, word):
    with pytest.raises(ValueError, match=word):
        prompts.from_tokens(windows(), tokenizer, count, length)


def test_a_text_file_holds_one_prompt_a_line(tokenizer, tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_bytes(b"the cat\r\n\n a dog and\nlast")
    made = prompts.from_file(path, tokenizer)
    assert [prompt.text for prompt in made] == ["the cat", " a dog and", "last"]
    assert made[0].tokens == tuple(tokenizer("the cat")["input_ids"])
    assert prompts.from_file(path, tokenizer, count=2) == made[:2]


def test_a_jsonl_file_holds_prompts_under_their_key(tokenizer, tmp_path):
    path = tmp_path / "prompts.jsonl"
    path.write_text(json.dumps({"prompt": "two\nlines", "other": 1}) + "\n" + json.dumps({"prompt": "end"}) + "\n")
    assert [prompt.text for prompt in prompts.from_file(path, tokenizer)] == ["two\nlines", "end"]


@pytest.mark.parametrize(
    ("name", "content", "word"),
    [
        ("a.txt", b" \n\n", "no prompt"),
        ("a.txt", b"alone\n", "one prompt in this file; write 2"),
        ("a.txt", b"\xff\xfe\x00", "not UTF-8"),
        ("a.jsonl", b'{"prompt": "a"}\n{"text": "b"}', "line 2"),
        ("a.jsonl", b"not json", "line 1"),
        ("a.jsonl", b"[1]", "line 1"),
    ],
)
def test_an_unreadable_file_is_refused_with_its_name(tokenizer, tmp_path, name, content, word):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=word) as error:
        prompts.from_file(tmp_path / name, tokenizer)
    assert name in str(error.value)


def test_a_file_is_read_whole_and_refused_where_it_has_too_few(tokenizer, tmp_path):
    path = tmp_path / "ten.txt"
    path.write_text("the cat\n" * 10)
    assert len(prompts.from_file(path, tokenizer, None)) == 10
    with pytest.raises(ValueError, match=r"ten\.txt.*asks for 11 prompts, but the file has 10"):
        prompts.from_file(path, tokenizer, 11)


def test_eight_windows_are_taken_where_no_number_is_named(tokenizer):
    assert len(prompts.from_tokens(windows(12), tokenizer, None, 4)) == 8
    with pytest.raises(ValueError, match="8 prompts are asked for, but the evaluation set has 3"):
        prompts.from_tokens(windows(3), tokenizer, None, 4)


def test_a_missing_file_is_an_os_error(tokenizer, tmp_path):
    with pytest.raises(OSError, match=r"none\.txt"):
        prompts.from_file(tmp_path / "none.txt", tokenizer)
