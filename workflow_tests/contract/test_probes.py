"""Every probe on every architecture: exact for the reference, sensitive to damage, well-formed, reproducible."""

import copy
import math

import numpy as np
import pytest
import torch

import tiny
from hemorrhage import plugins, records, reference
from hemorrhage.head import Head
from hemorrhage.probing import Context
from hemorrhage.tokens import TokenSet

PROBES = sorted(plugins.found("probes"))
WINDOWS, LENGTH, BATCH = 7, 16, 3  # the last batch is not full
PROTOCOL = {"window": LENGTH, "stride": LENGTH, "scored": "all", "bos": False, "joining": "article", "tail": "drop",
            "dtype": "float32"}


def token_set() -> TokenSet:
    tokens = tiny.tokens(WINDOWS, LENGTH).cpu().numpy().astype(np.int32)
    scored = np.ones(tokens.shape, dtype=bool)
    scored[:, 0] = False
    scored[1, :8] = False  # windows may hold different numbers of scored tokens
    return TokenSet(tokens, scored, 3 * scored.sum(1), [f"article {i}" for i in range(WINDOWS)],
                    {"protocol": PROTOCOL})


@pytest.fixture
def context(model, tmp_path):
    tokens = token_set()
    reference.measure(model, tokens, tmp_path / "reference", BATCH)
    return Context(tokens, reference.Reference.open(tmp_path / "reference"), Head.of(model), BATCH,
                   list(range(model.config.num_hidden_layers)), model="tiny")


def damaged(model, share=0.3):
    """A copy with noise on every matrix inside the blocks."""
    generator = torch.Generator().manual_seed(1)
    broken = copy.deepcopy(model)
    for name, parameter in broken.named_parameters():
        if parameter.dim() > 1 and "embed" not in name and "wte" not in name and "head" not in name:
            noise = torch.randn(parameter.shape, generator=generator).to(parameter.device)
            parameter.data += share * parameter.data.std() * noise
    return broken


def run(name, model, context):
    plugin = plugins.get("probes", name)
    return plugin.module.measure(model, context, plugin.settings({}))


@pytest.mark.parametrize("name", PROBES)
def test_the_reference_is_exactly_undamaged(name, model, context):
    found = {entry.metric: entry for entry in run(name, copy.deepcopy(model), context).metrics}
    for metric, entry in found.items():
        if metric.startswith(("kl", "delta_", "jensen", "total_variation", "nonfinite")) and entry.n:
            assert entry.value == 0, metric
        if "agreement" in metric or "overlap" in metric or metric == "perplexity_ratio":
            assert (entry.value, entry.se, entry.low, entry.high) == (1, 0, 1, 1), metric


@pytest.mark.parametrize("name", PROBES)
def test_damage_shows(name, model, context):
    found = {entry.metric: entry.value for entry in run(name, damaged(model), context).metrics}
    assert found["kl"] > 1e-4
    assert found["total_variation"] > 0
    assert found["delta_nll"] != 0


@pytest.mark.parametrize("name", PROBES)
def test_records_are_well_formed_and_byte_equal_on_a_second_run(name, model, context, tmp_path):
    broken = damaged(model)
    for turn in ("first", "second"):
        records.write(tmp_path / turn / f"{name}.json", run(name, broken, context), model="tiny", variant="damaged",
                      probe=name, version=plugins.get("probes", name).module.VERSION, protocol=PROTOCOL)
    for suffix in ("json", "npz"):
        first, second = (tmp_path / turn / f"{name}.{suffix}" for turn in ("first", "second"))
        assert first.read_bytes() == second.read_bytes()
    record = records.read(tmp_path / "first" / f"{name}.json")
    assert (record.model, record.variant, record.probe, record.protocol) == ("tiny", "damaged", name, PROTOCOL)
    for entry in record.measurement.metrics:
        assert entry.metric.isidentifier()
        assert entry.n == 0 or math.isnan(entry.low) or entry.low <= entry.value <= entry.high, entry
        assert entry.blocks <= WINDOWS
    for key, sums in record.measurement.windows.items():
        assert sums.shape == (WINDOWS,), key
    for key, values in record.measurement.token_arrays.items():
        assert values.shape == (WINDOWS, LENGTH), key
        assert np.isnan(values[:, 0]).all(), key


@pytest.mark.parametrize("name", PROBES)
def test_the_model_is_left_as_it_was(name, model, context):
    before = {key: value.clone() for key, value in model.state_dict().items()}
    run(name, model, context)
    for key, value in model.state_dict().items():
        torch.testing.assert_close(value, before[key], rtol=0, atol=0, equal_nan=True)
