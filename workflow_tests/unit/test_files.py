"""Files are written whole or not at all, and equal content gives equal bytes."""

import multiprocessing

import numpy as np
import pytest

from hemorrhage import files


def test_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    target = tmp_path / "a.txt"
    files.write_text(target, "old")
    with pytest.raises(RuntimeError), files.atomic(target) as part:
        part.write_text("new")
        raise RuntimeError
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_directory_replaces_directory(tmp_path):
    target = tmp_path / "folder"
    for text in ("one", "two"):
        with files.atomic(target) as part:
            part.mkdir()
            (part / text).write_text(text)
    assert [path.name for path in target.iterdir()] == ["two"]


def test_a_directory_that_was_not_removed_to_its_end_is_gone_from_its_name(tmp_path, monkeypatch):
    target = tmp_path / "folder"
    target.mkdir()
    (target / "weights").write_text("half")
    monkeypatch.setattr(files.shutil, "rmtree", lambda *_, **__: None)  # as if the process were killed in it
    files.remove(target)
    assert not target.exists()
    assert [path.name.startswith(files.PARTIAL) for path in tmp_path.iterdir()] == [True]


def test_json_holds_words_for_numbers_that_are_not_finite(tmp_path):
    files.write_json(tmp_path / "a.json", {"b": float("inf"), "a": [float("nan"), np.float32(1.5), -float("inf")]})
    assert files.read_json(tmp_path / "a.json") == {"a": ["nan", 1.5, "-inf"], "b": "inf"}


def test_broken_json_is_named(tmp_path):
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(ValueError, match=r"a\.json: not valid JSON"):
        files.read_json(tmp_path / "a.json")


def test_equal_arrays_give_equal_bytes(tmp_path):
    arrays = {"b": np.arange(5), "a": np.ones((2, 3), dtype=np.float32)}
    files.write_arrays(tmp_path / "1.npz", **arrays)
    files.write_arrays(tmp_path / "2.npz", **dict(reversed(arrays.items())))
    assert (tmp_path / "1.npz").read_bytes() == (tmp_path / "2.npz").read_bytes()


def _try(path, queue):
    with files.locked(path, wait=False) as free:
        queue.put(free)


def test_lock_keeps_another_process_out(tmp_path):
    queue = multiprocessing.get_context("spawn").Queue()
    with files.locked(tmp_path / "lock"):
        other = multiprocessing.get_context("spawn").Process(target=_try, args=(tmp_path / "lock", queue))
        other.start()
        other.join()
    assert queue.get() is False
