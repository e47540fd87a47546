"""Times of variants: more than nothing, against the reference, and never from two machines in one table."""

import pytest

import tiny
from hemorrhage import files
from hemorrhage.analysis import tables
from hemorrhage.measuring import speed

FACTS = {"model": "tiny", "parameters": 10, "dense_bytes": 40, "bytes_on_disk": None, "threads": 2, "device": "cpu"}


def written(folder, variant, **values):
    path = folder / f"{variant}.json"
    speed.write(path, {"prefill": 100.0, "generation": 10.0}, {**FACTS, "variant": variant, **values})
    return str(path)


def test_reading_and_generating_are_timed():
    found = speed.measure(tiny.build("llama"), tiny.tokens(1, 24)[0], prompt=4, new_tokens=3, repeats=2)
    assert set(found) == {"prefill", "generation"}
    assert all(value > 0 for value in found.values())


def test_a_table_gives_the_ratio_to_the_reference(tmp_path):
    paths = [written(tmp_path, "identity"), written(tmp_path, "half", bytes_on_disk=12)]
    files.write_json(paths[1], {**files.read_json(paths[1]), "prefill": 150.0})
    speed.collect(paths, str(tmp_path / "speed.tsv"))
    rows = {row["variant"]: row for row in tables.dicts(tables.read(tmp_path / "speed.tsv"))}
    assert float(rows["half"]["prefill_ratio"]) == 1.5
    assert [str(rows[variant]["bytes_on_disk"]) for variant in ("identity", "half")] == ["", "12"]
    assert float(rows["half"]["generation_ratio"]) == float(rows["identity"]["prefill_ratio"]) == 1.0


def test_times_of_other_threads_are_not_compared(tmp_path):
    paths = [written(tmp_path, "identity"), written(tmp_path, "half", threads=1)]
    with pytest.raises(ValueError, match="half of tiny ran with other threads"):
        speed.collect(paths, str(tmp_path / "speed.tsv"))
