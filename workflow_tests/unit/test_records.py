"""Records: what is written comes back, equal measurements give equal bytes, mistakes are named."""

import json
import math

import numpy as np
import pytest

from hemorrhage import records
from hemorrhage.analysis.statistics import Estimate
from hemorrhage.records import Measurement, Metric

OF = {"model": "m", "variant": "rtn_bits~4", "probe": "fidelity", "version": 3, "protocol": {"window": 256}}


def measurement():
    estimate = Estimate(math.inf, math.nan, 0.5, -math.inf, 12, 3)
    return Measurement(
        [Metric.of("kl", estimate, "nats"), Metric("a", 1.0, 0.1, 0.8, 1.2, 12, 3, "", None)],
        {"kl": np.array([1.0, math.inf, 3.0]), "count": np.array([4.0, 4.0, 4.0])},
        {"kl": np.full((3, 5), math.nan, dtype=np.float32)},
    )


def test_what_is_written_comes_back(tmp_path):
    records.write(tmp_path / "fidelity.json", measurement(), **OF)
    found = records.read(tmp_path / "fidelity.json")
    assert (found.model, found.variant, found.probe, found.version, found.protocol) == tuple(OF.values())
    kl = found["kl"]
    assert (kl.value, kl.low, kl.high, kl.n, kl.blocks, kl.unit) == (math.inf, 0.5, -math.inf, 12, 3, "nats")
    assert math.isnan(kl.se)
    assert kl.higher_is_better is False
    assert found["a"].higher_is_better is None
    assert found.measurement.windows["kl"].tolist() == [1.0, math.inf, 3.0]
    assert found.measurement.windows["count"].tolist() == [4.0, 4.0, 4.0]
    assert found.measurement.token_arrays["kl"].shape == (3, 5)


def test_the_file_is_strict_json_with_words_for_numbers_that_are_not_finite(tmp_path):
    records.write(tmp_path / "fidelity.json", measurement(), **OF)

    def refuse(word):
        raise AssertionError(f"{word} is not JSON")

    content = json.loads((tmp_path / "fidelity.json").read_text(), parse_constant=refuse)
    assert [content["metrics"][0][key] for key in ("value", "se", "high")] == ["inf", "nan", "-inf"]


def test_equal_measurements_give_equal_bytes(tmp_path):
    for folder in ("a", "b"):
        records.write(tmp_path / folder / "fidelity.json", measurement(), **OF)
    for name in ("fidelity.json", "fidelity.npz"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_a_record_without_arrays_is_one_file(tmp_path):
    records.write(tmp_path / "text.json", Measurement(measurement().metrics), **OF)
    assert [path.name for path in tmp_path.iterdir()] == ["text.json"]
    assert records.read(tmp_path / "text.json").measurement.windows == {}


def test_a_metric_reported_twice_is_refused(tmp_path):
    twice = Measurement(measurement().metrics * 2)
    with pytest.raises(ValueError, match="fidelity: the metrics a, kl are reported more than once"):
        records.write(tmp_path / "fidelity.json", twice, **OF)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_record_is_named(tmp_path):
    (tmp_path / "x.json").write_text('{"metrics": [{"metric": "kl"}]}')
    with pytest.raises(ValueError, match=r"x\.json: not a record"):
        records.read(tmp_path / "x.json")
