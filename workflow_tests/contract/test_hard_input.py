"""Weights and calibration that break naive codes: every pruning, quantization and low-rank method gives a finite,
recorded result or one readable error.

A new method is covered by being a file; nothing here names one.
"""

import json
import math

import pytest
import torch

import tiny
from hemorrhage import checkpoints, plugins
from hemorrhage.activations import gradients
from hemorrhage.architecture import targets
from tiny_data import TinyData

FAMILIES = ("pruning", "quantization", "low_rank")
METHODS = {name: plugin for name, plugin in plugins.found("modifications").items() if plugin.family in FAMILIES}
DEAD, ROW, CONSTANT = 5, 3, 0.07
SHORT = 4  # tokens: every Gram matrix has a rank of at most 4, of 32 or 64 channels


def _dead_channels(model):
    """No token ever moves one input channel of any target."""
    for layer in model.model.layers:
        for norm in (layer.input_layernorm, layer.post_attention_layernorm):
            norm.weight.data[DEAD] = 0
        for projection in (layer.self_attn.v_proj, layer.mlp.up_proj):
            projection.weight.data[DEAD] = 0


def _zero_rows(model):
    """One output of every target is always zero."""
    for target in targets.find(model):
        target.weight[ROW] = 0


def _constant_rows(model):
    """Every weight of one row ties with the others."""
    for target in targets.find(model):
        target.weight[ROW] = CONSTANT


def _as_it_is(model):
    """Only the calibration is hard."""


HARD = {
    "dead channels": (_dead_channels, {}),
    "zero rows": (_zero_rows, {}),
    "constant rows": (_constant_rows, {}),
    "one short sequence": (_as_it_is, {"sequences": 1, "length": SHORT}),
}


class HardData(TinyData):
    """The data of a reference that is hard itself."""

    def __init__(self, change, sequences=8, length=24):
        super().__init__()
        self.change, self.sequences, self.length = change, sequences, length

    def model(self):
        """The reference once more."""
        model = tiny.build("llama")
        self.change(model)
        return model

    def tokens(self, name):
        return tiny.tokens(self.sequences, self.length, seed=sum(name.encode()))

    def gradients(self, name, norm):
        return gradients.collect(self.model(), self.tokens(name), norm)


def apply(method, model, data):
    module = METHODS[method].module
    return module.apply(model, METHODS[method].settings(module.EXAMPLE), data)


def numbers(record):
    """Every number in a nested record."""
    if isinstance(record, dict):
        return [number for value in record.values() for number in numbers(value)]
    if isinstance(record, (list, tuple)):
        return [number for value in record for number in numbers(value)]
    return [record] if isinstance(record, (int, float)) else []


def logits(model):
    with torch.no_grad():
        return model(tiny.tokens(2, 12, seed=5), use_cache=False).logits


@pytest.mark.parametrize("hard", HARD)
@pytest.mark.parametrize("method", METHODS)
def test_the_result_is_finite_and_recorded(method, hard):
    change, calibration = HARD[hard]
    data = HardData(change, **calibration)
    model = data.model()
    achieved = apply(method, model, data)
    checkpoints._require_finite(model, method)
    assert torch.isfinite(logits(model)).all()
    assert all(math.isfinite(number) for number in numbers(achieved))
    json.dumps(achieved, allow_nan=False)
    asked = METHODS[method].module.EXAMPLE.get("sparsity")
    if asked is not None:
        assert achieved["sparsity"] == pytest.approx(asked, abs=1e-9)


@pytest.mark.parametrize("method", METHODS)
def test_a_row_of_zeros_stays_zero(method):
    data = HardData(_zero_rows)
    model = data.model()
    apply(method, model, data)
    for target in targets.find(model):
        # the factors of a truncated matrix leave rounding noise where a row was zero
        assert float(target.weight[ROW].abs().max()) <= 1e-6 * float(target.weight.abs().max())


@pytest.mark.parametrize("place", ["first", "last"])
@pytest.mark.parametrize("method", METHODS)
def test_a_weight_that_is_no_number_is_refused_by_name(method, place):
    model, data = tiny.build("llama"), TinyData()
    broken = targets.find(model)[0 if place == "first" else -1]
    broken.weight[1, 2] = math.nan
    with pytest.raises(ValueError, match="finite") as refusal:
        apply(method, model, data)
    assert broken.name.removesuffix(".weight") in str(refusal.value)
