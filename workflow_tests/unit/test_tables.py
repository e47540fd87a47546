"""Tables: one row per variant, metric and sweep; exact numbers; equal bytes."""

import math
from pathlib import Path

import example_study
import numpy as np
import pandas as pd
import pytest

from hemorrhage.analysis import tables


def test_rows_per_variant_metric_and_sweep(example):
    table = tables.read(example["metrics"])
    assert list(table.columns) == tables.METRICS
    identity = table[table.variant == "identity"]
    assert (identity.sweep == "").all() and (identity.level == "").all()
    chained = table[(table.variant == "magnitude_sparsity~0.5+rtn_bits~4") & (table.metric == "kl")]
    assert sorted(chained.level) == ["0.5", "4"] and chained.sweep.nunique() == 2
    assert set(table[table.probe == "text.greedy"].metric) >= {"weight_effect.token_agreement"}
    assert set(table[table.probe == "fidelity"].protocol) == {"article-256-256-all-float32"}


def test_window_sums_come_back_as_written(example):
    windows = tables.read_windows(example["windows"])
    sums, counts = windows[example_study.MODEL, "magnitude_sparsity~0.3", "kl"]
    table = tables.read(example["metrics"])
    row = table[(table.variant == "magnitude_sparsity~0.3") & (table.metric == "kl")].iloc[0]
    assert sums.sum() / counts.sum() == pytest.approx(row.value, rel=1e-12)
    assert len(sums) == row.blocks == example_study.BLOCKS


def test_neither_folder_nor_order_of_the_inputs_changes_a_byte(tmp_path, example):
    other = example_study.write_tables(tmp_path)
    records = example_study.write_records(tmp_path, other["study"])
    tables.collect(records[::-1], other["study"], other["metrics"], other["windows"])
    for name in ("metrics", "windows", "floors", "thresholds", "mitigations"):
        assert Path(other[name]).read_bytes() == Path(example[name]).read_bytes(), name


def test_infinite_and_unknown_numbers_survive(tmp_path):
    frame = pd.DataFrame({"variant": ["a", "b", ""], "value": [math.inf, math.nan, 0.1 + 0.2]})
    tables.write(frame, tmp_path / "t.tsv")
    back = tables.read(tmp_path / "t.tsv")
    assert np.isinf(back.value[0]) and np.isnan(back.value[1]) and back.value[2] == 0.1 + 0.2
    assert back.variant[2] == ""


def test_floors_are_named_without_their_prefix(example):
    floors = tables.read(example["floors"])
    assert dict(zip(floors.floor, floors.value, strict=True)) == {"batch": 0.0, "bf16": 3.1e-5}
