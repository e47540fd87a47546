"""Costs, notes, cards and the README's blocks."""

import json
from math import nan

import pytest

from hemorrhage import files
from hemorrhage.records import Measurement, Metric, Record
from hemorrhage.reporting import costs, findings, model_card, notes, readme


def benchmark(path, *seconds):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"s": s, "cpu_time": s / 2, "max_rss": 1000 * s}) + "\n" for s in seconds))


def test_costs_take_the_last_run_of_a_job_and_sum_by_rule(tmp_path):
    benchmark(tmp_path / "modify_model" / "m" / "a.jsonl", 9, 1)
    benchmark(tmp_path / "modify_model" / "m" / "b.jsonl", 3)
    benchmark(tmp_path / "write_report.jsonl", 2)
    table = costs.by_rule(costs.read(tmp_path)).set_index("rule")
    assert table.loc["modify_model", ["jobs", "seconds", "median", "peak_mb"]].tolist() == [2, 4, 2, 3000]
    assert table.loc["write_report", "jobs"] == 1
    assert "| all | 3 | 6 |" in costs.markdown(costs.read(tmp_path))


def test_costs_without_a_run_are_refused(tmp_path):
    with pytest.raises(ValueError, match="run the study first"):
        costs.read(tmp_path)


def test_only_the_parts_between_markers_are_replaced():
    text = "a\n<!-- begin:x -->\nold\n<!-- end:x -->\nb\n"
    assert readme.fill(text, {"x": "new"}) == "a\n<!-- begin:x -->\nnew\n<!-- end:x -->\nb\n"
    with pytest.raises(ValueError, match="'y' are missing"):
        readme.fill(text, {"y": ""})


def test_a_quantized_baseline_is_called_so(tmp_path):
    path = tmp_path / "m" / "base" / "hemorrhage.json"
    files.write_json(path, {"source": "path:x.gguf", "dtype": "float32", "baseline": "dequantised Q4_1"})
    assert any("dequantised Q4_1 baseline" in note and "no verdict on 4 bits" in note for note in notes.of([path]))
    files.write_json(path, {"source": "path:x", "dtype": "float32", "baseline": "dense"})
    assert len(notes.of([path])) == 1


@pytest.mark.parametrize(("ratio", "word"), [(1.0, "none"), (1.3, "moderate"), (99, "fatal"), (float("nan"), "fatal")])
def test_severity_word_is_the_first_whose_limit_holds(ratio, word):
    assert model_card.severity_word(ratio, [["none", 0.01], ["moderate", 1.0]]) == word


def test_card_says_what_was_done_and_what_it_cost():
    metrics = [Metric(name, 1.5, 0.1, 1.2, 1.8, 100, 8) for name in model_card.SHOWN]
    fidelity = Record("m", "rtn_bits~3", "fidelity", 1, {"window": 64}, Measurement(metrics))
    record = {
        "recipe": [{"method": "rtn", "settings": {"bits": 3, "group": None}}],
        "attachments": [{"kind": "logit_scale"}],
        "achieved": [],
        "fingerprint": "f",
    }
    card = model_card.text(record, {"source": "path:x", "baseline": "dense"}, fidelity, [["none", 0.01], ["mild", 1.0]])
    assert "Damage: **mild**" in card and "`rtn` bits 3" in card and "group" not in card
    assert "| kl | 1.5 | 1.2 to 1.8 |" in card and "**Attachments.**" in card


BITS, SHARE = {"rises": False, "integer": True}, {"rises": True, "integer": False}


@pytest.mark.parametrize(
    ("axis", "weak", "strong", "shown"),
    [
        (BITS, {"inside": 8, "outside": 4}, {"inside": 5, "outside": 4}, False),  # 5 bits were not measured of it
        (BITS, {"inside": 8, "outside": 5}, {"inside": 5, "outside": 4}, True),
        (BITS, {"state": "already exceeded", "inside": nan, "outside": 8}, {"inside": 8, "outside": 7}, True),
        (BITS, {"inside": 5, "outside": 4}, {"state": "not reached", "inside": 3, "outside": nan}, True),
        (SHARE, {"low": 0.19, "high": 0.23}, {"low": 0.21, "high": 0.24}, False),
        (SHARE, {"low": 0.11, "high": 0.12}, {"low": 0.21, "high": 0.24}, True),
    ],
)
def test_a_sweep_breaks_first_only_where_its_interval_or_levels_say_so(axis, weak, strong, shown):
    rows = [{"state": "inside", **row} for row in (weak, strong)]
    assert findings._breaks_first(*rows, axis) == shown
