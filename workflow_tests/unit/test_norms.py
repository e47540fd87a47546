"""Norms and rotary positions: what they are, and what the methods that change them leave."""

import pytest
import torch
from torch import nn

import tiny
from hemorrhage import checkpoints, plugins
from hemorrhage.architecture import attachments, norms, rotary
from tiny_data import TinyData

NORMS = {
    "llama": ["attention", "mlp"],
    "gpt2": ["attention", "mlp"],
    "opt": ["attention", "mlp"],
    "gpt_neox": ["attention", "mlp"],
    "qwen3": ["attention", "query_key", "query_key", "mlp"],
    "gemma2": ["attention", "attention", "mlp", "mlp"],
    "mixtral": ["attention", "mlp"],
    "mamba": ["attention"],
}


def changed(method, architecture="llama", **settings):
    """(changed model, what was achieved)."""
    plugin = plugins.get("modifications", method)
    model = tiny.build(architecture)
    return model, plugin.module.apply(model, plugin.settings(settings), TinyData(architecture))


def logits(model):
    with torch.no_grad():
        return model(tiny.tokens()).logits


def reloaded(model, folder):
    checkpoints.save(model, folder / "saved", {"attachments": attachments.attached(model)})
    return checkpoints.load(folder / "saved", "float32", "cpu")


def test_every_norm_is_found_with_what_it_serves(architecture):
    found = norms.find_norms(tiny.build(architecture))
    assert [norm.serves for norm in found if norm.block == 1] == NORMS[architecture]
    assert [norm.serves for norm in found if norm.block == 3] == ["final"]


def test_a_gain_kept_as_a_distance_from_one_is_known(architecture):
    module = norms.find_norms(tiny.build(architecture))[0].module
    assert norms.offset(module) == (1 if architecture == "gemma2" else 0)
    norms.scale(module, 0)
    assert not module(torch.randn(2, 32)).any()


def test_noise_multiplies_each_gain(architecture):
    model, achieved = changed("perturb_norms", architecture, sigma=0.2, which="final")
    assert achieved == {"norms": 1}
    new, old = (norms.find_norms(each)[-1].module for each in (model, tiny.build(architecture)))
    start = norms.offset(old)
    ratio = ((new.weight + start) / (old.weight + start)).detach()
    assert float((ratio - 1).std()) == pytest.approx(0.2, abs=0.08)


def test_a_swapped_rms_norm_is_the_layer_norm_of_its_gain():
    model, achieved = changed("swap_norms", norms=1, which="final")
    assert achieved == {"swapped": ["model.norm"], "forms": ["layer"]}
    gain, epsilon = model.model.norm.weight, model.model.norm.variance_epsilon
    x = torch.randn(3, 32) + 2
    expected = nn.functional.layer_norm(x, (32,), gain, None, epsilon)
    torch.testing.assert_close(model.model.norm(x), expected, rtol=1e-4, atol=1e-5)


def test_a_swapped_layer_norm_is_the_rms_norm_of_its_gain():
    model, achieved = changed("swap_norms", "gpt2", norms=1, which="final")
    assert achieved["forms"] == ["rms"]
    norm = model.transformer.ln_f
    x = torch.randn(3, 32) + 2
    expected = nn.functional.rms_norm(x, (32,), norm.weight, norm.eps) + norm.bias
    torch.testing.assert_close(norm(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gemma2"])
def test_a_dropped_norm_is_linear(architecture):
    model, achieved = changed("drop_norms", architecture, norms=1)
    norm = norms.find_norms(model)[-1]
    assert achieved["dropped"] == [norm.name]
    x, shift = torch.randn(3, 32), norm.module(torch.zeros(1, 32))
    torch.testing.assert_close(norm.module(3 * x) - shift, 3 * (norm.module(x) - shift), rtol=1e-4, atol=1e-4)
    plain, one = changed("drop_norms", architecture, norms=1, scale="none")
    assert one["factors"] == [1.0]
    assert not torch.equal(logits(plain), logits(model))


def test_the_fixed_number_is_the_mean_factor_of_the_norm():
    achieved = changed("drop_norms", norms=1)[1]
    caught = []
    fresh = tiny.build("llama")
    fresh.model.norm.register_forward_pre_hook(lambda module, args: caught.append(args[0]))
    logits_of = TinyData().tokens("default")
    with torch.no_grad():
        fresh(logits_of)
    expected = (caught[0].square().mean(-1) + fresh.model.norm.variance_epsilon).rsqrt().mean()
    assert achieved["factors"] == pytest.approx([float(expected)], rel=1e-5)


def test_norms_go_from_the_end_that_is_named():
    assert changed("drop_norms", norms=2)[1]["dropped"] == ["model.norm", "model.layers.2.post_attention_layernorm"]
    first = changed("drop_norms", norms=2, begin="first", which="mlp")[1]["dropped"]
    assert first == ["model.layers.0.post_attention_layernorm", "model.layers.1.post_attention_layernorm"]
    with pytest.raises(ValueError, match="norms: 8 are asked for and the model has 7"):
        changed("drop_norms", norms=8)
    with pytest.raises(ValueError, match="no norm that serves 'query_key'"):
        changed("drop_norms", norms=1, which="query_key")


@pytest.mark.parametrize("method", ["drop_norms", "swap_norms"])
def test_norm_attachments_are_put_back(method, tmp_path):
    model, _ = changed(method, norms=3)
    assert torch.equal(logits(reloaded(model, tmp_path)), logits(model))


def test_the_epsilon_is_saved_with_the_model(tmp_path):
    model, achieved = changed("shift_epsilon", factor=1000)
    assert achieved["epsilon"] == pytest.approx({"rms_norm_eps": 1e-3})
    loaded = reloaded(model, tmp_path)
    assert loaded.model.layers[1].input_layernorm.variance_epsilon == pytest.approx(1e-3)
    assert torch.equal(logits(loaded), logits(model))
    with pytest.raises(ValueError, match="OPTForCausalLM: its config does not hold the epsilon"):
        changed("shift_epsilon", "opt")


def test_a_wrong_norm_attachment_is_refused():
    for spec, message in (
        ({"target": "model.nrm", "form": "layer"}, "unknown target of the norm attachment"),
        ({"target": "model.norm", "form": "later"}, "unknown form"),
        ({"target": "model.norm", "form": "fixed"}, "scale: None is not a number"),
    ):
        with pytest.raises(ValueError, match=message):
            attachments.attach(tiny.build("llama"), {"kind": "norm", **spec})


def frequencies(model):
    return next(iter(rotary.modules(model).values())).inv_freq


def test_linear_scaling_divides_every_position():
    model, _ = changed("rope_scaling", factor=4)
    torch.testing.assert_close(frequencies(model) * 4, frequencies(tiny.build("llama")))


def test_ntk_scaling_keeps_the_fastest_and_stretches_the_slowest():
    ratio = frequencies(tiny.build("llama")) / frequencies(changed("rope_scaling", factor=4, kind="ntk")[0])
    assert float(ratio[0]) == 1
    assert float(ratio[-1]) == pytest.approx(4, rel=1e-4)


@pytest.mark.parametrize("kind", ["linear", "ntk", "yarn"])
@pytest.mark.parametrize("architecture", ["llama", "gpt_neox", "gemma2"])
def test_scaled_positions_are_saved_with_the_model(kind, architecture, tmp_path):
    model, _ = changed("rope_scaling", architecture, factor=4, kind=kind)
    assert torch.equal(logits(reloaded(model, tmp_path)), logits(model))


def test_positions_are_scaled_once_and_only_where_there_are_rotary_ones():
    model, _ = changed("rope_scaling", factor=4)
    assert "scaled already (linear)" in rotary.unsuited(model)
    with pytest.raises(ValueError, match="OPTForCausalLM: it has no rotary positions"):
        changed("rope_scaling", "opt")
