"""Every probe on every architecture: exact for the reference, sensitive to damage, well-formed, reproducible."""

import copy
import dataclasses
import math

import numpy as np
import pytest
import torch

import tiny
from hemorrhage import plugins, records
from hemorrhage.architecture.head import Head
from hemorrhage.corpus.tokens import TokenSet
from hemorrhage.measuring import reference
from hemorrhage.probing import Context

PROBES = sorted(plugins.found("probes"))
WINDOWS, LENGTH, BATCH = 7, 16, 3  # the last batch is not full
DISTANCES = (
    "kl",
    "delta_",
    "jensen",
    "total_variation",
    "nonfinite",
    "relative_error",
    "swap_kl",
    "swap_control",
    "swap_injected",
    "swap_end_error",
    "swap_whole",
    "disruption",
    "entropy_change",
    "first_token_mass_change",
    "flips",
    "score_loss",
)
DAMAGED = {
    "fidelity": ("kl", "total_variation", "delta_nll"),
    "attention": ("disruption", "disruption.02"),
    "cascade": ("relative_error.00", "relative_error.02", "swap_kl.00", "swap_kl.02", "swap_additivity"),
    "tasks": ("delta_margin.agreement",),
    "depth_map": ("removal_kl.01.1", "repetition_delta_nll.00.1"),
    "context": ("kl_position.0001", "delta_nll_position.0008", "kl_length.0004"),
}
WITHOUT_ATTENTION = ("mamba",)
PROTOCOL = {
    "window": LENGTH,
    "stride": LENGTH,
    "scored": "all",
    "bos": False,
    "joining": "article",
    "tail": "drop",
    "dtype": "float32",
}


def token_set() -> TokenSet:
    tokens = tiny.tokens(WINDOWS, LENGTH).cpu().numpy().astype(np.int32)
    scored = np.ones(tokens.shape, dtype=bool)
    scored[:, 0] = False
    scored[1, :8] = False  # windows may hold different numbers of scored tokens
    return TokenSet(tokens, scored, 3 * scored.sum(1), [f"article {i}" for i in range(WINDOWS)], {"protocol": PROTOCOL})


@pytest.fixture
def context(model, tmp_path):
    tokens = token_set()
    reference.measure(model, tokens, tmp_path / "reference", BATCH)
    tiny.tokenizer().save_pretrained(tmp_path / "base")
    return Context(
        tokens,
        reference.Reference.open(tmp_path / "reference"),
        Head.of(model),
        BATCH,
        list(range(model.config.num_hidden_layers)),
        model="tiny",
        load_reference=lambda: copy.deepcopy(model),
        model_dir=tmp_path,
    )


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
    """What the probe finds; its baseline, if it has one, is what it finds of the reference."""
    plugin = plugins.get("probes", name)
    settings = plugin.settings(getattr(plugin.module, "EXAMPLE", {}))
    if getattr(plugin.module, "BASELINE", False):
        own = plugin.module.measure(context.loaded_reference(), context, settings)
        context = dataclasses.replace(context, baseline=own.arrays)
    return plugin.module.measure(model, context, settings)


@pytest.mark.parametrize("name", PROBES)
def test_the_reference_is_exactly_undamaged(name, model, context):
    found = {entry.metric: entry for entry in run(name, copy.deepcopy(model), context).metrics}
    for metric, entry in found.items():
        if metric.startswith(DISTANCES) and entry.n:
            assert entry.value == 0, metric
        if metric in ("top1_agreement", "top5_overlap", "perplexity_ratio"):
            assert (entry.value, entry.se, entry.low, entry.high) == (1, 0, 1, 1), metric


@pytest.mark.parametrize("name", PROBES)
def test_damage_shows(name, architecture, model, context):
    found = {entry.metric: entry.value for entry in run(name, damaged(model), context).metrics}
    if found.get("attention_blocks") == 0:
        assert architecture in WITHOUT_ATTENTION
        return
    for metric in DAMAGED.get(name, ()):
        assert abs(found[metric]) > 1e-4, metric


@pytest.mark.parametrize("name", PROBES)
def test_records_are_well_formed_and_byte_equal_on_a_second_run(name, model, context, tmp_path):
    broken = damaged(model)
    for turn in ("first", "second"):
        records.write(
            tmp_path / turn / f"{name}.json",
            run(name, broken, context),
            model="tiny",
            variant="damaged",
            probe=name,
            version=plugins.get("probes", name).module.VERSION,
            protocol=PROTOCOL,
        )
    for suffix in ("json", "npz"):
        first, second = (tmp_path / turn / f"{name}.{suffix}" for turn in ("first", "second"))
        assert first.read_bytes() == second.read_bytes()
    record = records.read(tmp_path / "first" / f"{name}.json")
    assert (record.model, record.variant, record.probe) == ("tiny", "damaged", name)
    assert record.protocol == PROTOCOL or name == "tasks"
    for entry in record.measurement.metrics:
        assert entry.metric.replace(".", "_").isidentifier()
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
