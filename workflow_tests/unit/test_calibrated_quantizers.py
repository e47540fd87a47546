"""GPTQ, AWQ, SmoothQuant and the outlier split on whole tiny models; every quantizer on weights that break formulas."""

import math

import pytest
import torch

import tiny
from hemorrhage import plugins
from hemorrhage.activations import calibration
from hemorrhage.architecture import attachments, targets
from hemorrhage.methods import quantization, tensors
from tiny_data import TinyData

QUANTIZERS = [name for name, plugin in plugins.found("modifications").items() if plugin.family == "quantization"]
WEIGHT_QUANTIZERS = ["rtn", "gptq", "awq", "nf4", "fp4", "fp8", "int8", "gguf_blocks"]


def changed(method, model=None, data=None, **settings):
    """(changed model, what was achieved)."""
    plugin = plugins.get("modifications", method)
    model = model or tiny.build()
    return model, plugin.module.apply(model, plugin.settings(settings), data or TinyData())


def logits(model):
    with torch.no_grad():
        return model(tiny.tokens(3, 20)).logits


def moments(model):
    """Second moments of every target's input in the model as it is."""
    grams = {}
    calibration.walk(
        model,
        TinyData().tokens("default"),
        statistics=("gram",),
        visit=lambda group: grams.update({target.name: group.gram() for target in group.targets}),
    )
    return grams


@pytest.mark.parametrize("method", ["gptq", "awq"])
@pytest.mark.parametrize("group", [None, 16])
def test_output_errors_are_below_those_of_rounding_to_nearest(method, group):
    dense = tiny.build()
    grams = moments(dense)
    errors = {}
    for name in ("rtn", method):
        model, _ = changed(name, bits=3, group=group)
        errors[name] = [
            float(tensors.output_energy(new.weight - old.weight, grams[old.name]).sum())
            for new, old in zip(targets.find(model), targets.find(dense), strict=True)
        ]
    assert sum(errors[method]) < 0.9 * sum(errors["rtn"])
    below = [ours < nearest for ours, nearest in zip(errors[method], errors["rtn"], strict=True)]
    assert sum(below) >= 0.9 * len(below)


@pytest.mark.parametrize("method", ["gptq", "awq"])
def test_one_pass_and_chunks_give_the_same_weights_up_to_float_sums(method):
    one, achieved = changed(method, bits=4)
    parts, again = changed(method, bits=4, data=TinyData(chunk=3))
    assert achieved["output_error"] == pytest.approx(again["output_error"], rel=0.05)
    for a, b in zip(targets.find(one), targets.find(parts), strict=True):
        # a value at the middle of two points may fall on either side, and later ones follow
        assert float((a.weight - b.weight).abs().gt(1e-3).float().mean()) < 0.1


@pytest.mark.parametrize("method", ["gptq", "awq"])
def test_order_block_shows_the_inputs_of_the_dense_block(method):
    model, _ = changed(method, bits=3, order="block")
    other, _ = changed(method, bits=3)
    first = [target.name for target in targets.find(model)][:3]
    same = {
        a.name: torch.equal(a.weight, b.weight) for a, b in zip(targets.find(model), targets.find(other), strict=True)
    }
    assert all(same[name] for name in first)  # q, k and v of the first block see nothing changed
    assert not all(same.values())


def test_gptq_counts_an_index_for_every_matrix_whose_columns_are_out_of_order():
    plain, static, ordered = (
        changed("gptq", bits=4, group=16, act_order=order, static_groups=static)[1]["bits_per_weight"]
        for order, static in ((False, False), (True, True), (True, False))
    )
    assert plain == static == 4 + 20 / 16
    found = targets.find(tiny.build("llama"))  # a 32-bit number for every column of every matrix
    index = 32 * sum(target.in_features for target in found) / sum(target.weight.numel() for target in found)
    assert ordered == pytest.approx(plain + index, rel=1e-12)


def test_experts_without_tokens_are_rounded_to_nearest_and_counted():
    class Few(TinyData):
        def tokens(self, name):
            return tiny.tokens(1, 2)

    for method in ("gptq", "awq"):
        model, achieved = changed(method, tiny.build("mixtral"), Few("mixtral"), bits=4)
        assert achieved["targets_without_tokens"] > 0
        nearest, _ = changed("rtn", tiny.build("mixtral"), bits=4)
        same = sum(
            torch.allclose(a.weight, b.weight) for a, b in zip(targets.find(model), targets.find(nearest), strict=True)
        )
        assert same >= achieved["targets_without_tokens"]


@pytest.mark.parametrize("alpha", [0.0, 0.5, 0.85, 1.0])
@pytest.mark.parametrize("grid", ["per_token", "per_tensor"])
def test_smoothquant_follows_its_formula(alpha, grid):
    dense = tiny.build()
    model, _ = changed("smoothquant", bits=6, alpha=alpha, grid=grid)
    new = {target.name: target.weight for target in targets.find(model)}
    specs = {spec["target"]: spec for spec in attachments.attached(model)}
    for members, peak in quantization.peaks(dense, TinyData(), "default"):
        heaviest = torch.stack([target.weight.abs().amax(0) for target in members]).amax(0)
        smooth = peak**alpha / heaviest ** (1 - alpha)
        for target in members:
            spec = specs[target.name]
            torch.testing.assert_close(torch.tensor(spec["smooth"]), smooth, rtol=1e-5, atol=1e-7)
            smooth = torch.tensor(spec["smooth"])
            step = (target.weight * smooth).abs().amax(1, keepdim=True) / 31
            expected = torch.round(target.weight * smooth / step) * step / smooth
            torch.testing.assert_close(new[target.name], expected)
            assert (spec["grid"], spec["bits"]) == (grid, 6)
            if grid == "per_tensor":
                assert spec["scale"] == pytest.approx(float((peak / smooth).max()) / 31, rel=1e-5)


def with_outliers():
    """A model in which three channels of every norm's output are 40 times as large as the others."""
    model = tiny.build()
    for name, module in model.named_modules():
        if name.endswith("layernorm"):
            module.weight.data[[1, 8, 30]] *= 40
    for target in targets.find(model):
        if any(part in target.name for part in ("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj")):
            target.weight[:, [1, 8, 30]] /= 40
    return model


@pytest.mark.parametrize(
    ("method", "settings"),
    [("smoothquant", {"grid": "per_tensor"}), ("outlier_split", {}), ("smoothquant", {"grid": "per_token"})],
)
def test_outliers_hurt_less_than_with_plain_rounding(method, settings):
    dense = with_outliers()
    model, _ = changed(method, with_outliers(), bits=6, **settings)
    plain, _ = changed("rtn", with_outliers(), bits=6, symmetric=True)
    changed("static_activations" if "tensor" in settings.get("grid", "") else "dynamic_activations", plain, bits=6)
    error, nearest = ((logits(other) - logits(dense)).square().mean() for other in (model, plain))
    assert float(error) < 0.5 * float(nearest)


def test_the_outlier_split_keeps_the_channels_above_the_threshold():
    dense = with_outliers()
    name = "model.layers.1.mlp.up_proj.weight"
    peak = next(
        peak
        for members, peak in quantization.peaks(dense, TinyData(), "default")
        if name in [target.name for target in members]
    )
    chosen = (peak > 6).nonzero().flatten()
    model, achieved = changed("outlier_split", with_outliers(), bits=4)
    exact = {spec["target"]: spec["exact"] for spec in attachments.attached(model)}
    assert exact[name] == chosen.tolist()
    new, old = (next(t for t in targets.find(m) if t.name == name).weight for m in (model, dense))
    assert torch.equal(new[:, chosen], old[:, chosen])
    rest = old.index_fill(1, chosen, 0)
    torch.testing.assert_close(new.index_fill(1, chosen, 0), tensors.quantize_rtn(rest, 4, True, None))
    assert 0 < achieved["outlier_channels"] < 1
    assert 4 < achieved["bits_per_weight"] < 16


def broken_in_places():
    """A model with dead channels, rows of zeros and constant rows."""
    model = tiny.build()
    for block in model.model.layers:
        block.input_layernorm.weight.data[:4] = 0
        block.mlp.up_proj.weight.data[:5] = 0
        block.mlp.gate_proj.weight.data[7] = 0.25
        block.self_attn.v_proj.weight.data[2] = 0
    return model


class Short(TinyData):
    """One short sequence: the inputs span few directions."""

    def tokens(self, name):
        return tiny.tokens(1, 5)


@pytest.mark.parametrize("method", QUANTIZERS)
def test_hard_weights_and_few_tokens_give_a_finite_recorded_result(method):
    settings = plugins.get("modifications", method).module.EXAMPLE
    model, achieved = changed(method, broken_in_places(), Short(), **settings)
    assert torch.isfinite(logits(model)).all()
    for value in achieved.values():
        assert isinstance(value, str) or math.isfinite(value)
    if method in WEIGHT_QUANTIZERS:
        up = next(target for target in targets.find(model) if target.name.endswith("up_proj.weight"))
        assert (up.weight[:5] == 0).all()


@pytest.mark.parametrize("method", ["gptq", "awq", "smoothquant", "outlier_split"])
def test_weights_that_are_not_finite_are_named(method):
    model = tiny.build()
    targets.find(model)[0].weight[0, 0] = math.nan
    with pytest.raises(ValueError, match=r"layers\.\d.*finite"):
        changed(method, model)


def test_gguf_refuses_a_width_that_blocks_do_not_divide():
    plugin = plugins.get("modifications", "gguf_blocks")
    with pytest.raises(ValueError, match=r"blocks of 32 weights do not divide the width 4 of .*dt_proj"):
        changed("gguf_blocks", tiny.build("mamba"))
    with pytest.raises(ValueError, match=r"blocks of 32 .* width 80 of hidden_size"):
        plugin.module.refuse(plugin.settings({}), {"hidden_size": 80})
    for settings in ({"bits": 6}, {"bits": 8, "minimum": True}):
        with pytest.raises(ValueError, match=r"gguf_blocks: bits: \d with minimum"):
            plugin.settings(settings)


@pytest.mark.parametrize(
    ("method", "settings", "bits"),
    [
        ("nf4", {"group": 64}, 4.5),
        ("fp4", {"group": 128}, 4.25),
        ("gguf_blocks", {"bits": 4}, 4.5),
        ("gguf_blocks", {"bits": 5, "minimum": True}, 6.0),
        ("gguf_blocks", {"bits": 8}, 8.5),
    ],
)
def test_sizes_are_those_of_the_formats(method, settings, bits):
    assert changed(method, **settings)[1]["bits_per_weight"] == bits


def test_8_bit_grids_lose_little_and_4_bit_grids_more():
    errors = {name: changed(name)[1]["relative_error"] for name in ("int8", "fp8", "nf4", "fp4", "gguf_blocks")}
    assert errors["int8"] < errors["fp8"] < errors["nf4"] < errors["fp4"] < 0.2
    assert errors["fp8"] < errors["gguf_blocks"] < errors["fp4"]
