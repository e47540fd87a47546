"""Slicing the residual stream: a rotation alone changes nothing, what is left out is the least of the variance."""

import pytest
import torch
import transformers as hf

import tiny
from hemorrhage import checkpoints, plugins
from hemorrhage.architecture import targets
from hemorrhage.architecture.head import Head, hidden_states
from hemorrhage.methods import residual_slicing
from tiny_data import TinyData

SERVED = ("llama", "qwen3")


def logits(model):
    with torch.no_grad():
        return model(tiny.tokens(3, 20, seed=5), use_cache=False).logits


@pytest.mark.parametrize("architecture", SERVED)
def test_a_rotation_alone_changes_nothing(architecture):
    model = tiny.build(architecture)
    basis, variance = residual_slicing.directions(model, TinyData().tokens("default"))
    assert torch.allclose(basis.T @ basis, torch.eye(32).double(), atol=1e-9)
    assert variance.tolist() == sorted(variance.tolist(), reverse=True)
    assert float(variance.sum()) == pytest.approx(32, rel=1e-5)
    residual_slicing.rotate(model, basis)
    torch.testing.assert_close(logits(model), logits(tiny.build(architecture)), rtol=1e-3, atol=1e-3)


def test_directions_that_are_never_used_can_go_without_a_loss():
    model = tiny.build("llama")
    keep = torch.zeros(32)
    keep[:20] = 1
    model.get_input_embeddings().weight.data *= keep
    for target in targets.find(model):
        if target.name.endswith(("o_proj.weight", "down_proj.weight")):
            target.weight.mul_(keep[:, None])
    before = logits(model)
    basis, variance = residual_slicing.directions(model, TinyData().tokens("default"))
    assert float(variance[20:].abs().max()) < 1e-6
    residual_slicing.rotate(model, basis[:, :20])
    assert model.config.hidden_size == 20
    torch.testing.assert_close(logits(model), before, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("architecture", SERVED)
def test_the_result_is_a_plain_smaller_model(architecture, tmp_path):
    plugin = plugins.get("modifications", "slice_residual")
    model = tiny.build(architecture)
    achieved = plugin.module.apply(model, plugin.settings({"ratio": 0.25}), TinyData(architecture))
    assert (model.config.hidden_size, model.config.head_dim) == (24, 8 if architecture == "llama" else 16)
    assert achieved["parameters_after"] == sum(p.numel() for p in model.parameters())
    assert achieved["weights_after"] == achieved["weights_before"] * 3 // 4
    assert 0.5 < achieved["kept_variance"] < 1
    checkpoints.save(model, tmp_path / "sliced", {"attachments": []})
    loaded = checkpoints.load(tmp_path / "sliced", "float32", "cpu")
    assert torch.equal(logits(loaded), logits(model))
    head = Head.load(tmp_path / "sliced", torch.float32, "cpu")
    tokens = tiny.tokens(3, 20, seed=5)
    torch.testing.assert_close(head(hidden_states(model, tokens)), logits(model), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("architecture", "why"),
    [
        ("gpt2", "layer norms"),
        ("gemma2", "one norm before each part"),
        ("mixtral", "fused experts"),
        ("mamba", "one norm before each"),
    ],
)
def test_streams_that_cannot_be_rotated_are_refused(architecture, why):
    assert why in residual_slicing.unsuited(tiny.build(architecture))


def test_quantizers_come_after_the_slice():
    plugin = plugins.get("modifications", "dynamic_activations")
    model = tiny.build("llama")
    plugin.module.apply(model, plugin.settings(plugin.module.EXAMPLE), TinyData())
    with pytest.raises(ValueError, match="slice first"):
        residual_slicing.rotate(model, torch.eye(32).double())


@pytest.mark.parametrize(
    ("width", "multiple", "heads", "expected"),
    [(4096, 8, 32, 32), (576, 8, 9, 9), (576, 1, 9, 9), (2048, 128, 32, 128)],
)
def test_a_hidden_size_is_a_multiple_of_the_heads(width, multiple, heads, expected):
    assert plugins.get("modifications", "slice_residual").module.step(width, multiple, heads) == expected


def test_a_stream_with_an_odd_number_of_heads_is_sliced_to_what_its_config_accepts(tmp_path):
    config = hf.LlamaConfig(
        vocab_size=tiny.VOCABULARY,
        hidden_size=48,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=3,
        num_key_value_heads=3,
    )
    model = hf.LlamaForCausalLM(config).eval()
    plugin = plugins.get("modifications", "slice_residual")
    achieved = plugin.module.apply(model, plugin.settings({"ratio": 0.3}), TinyData())
    assert achieved["hidden_size"] == 33
    checkpoints.save(model, tmp_path / "sliced", {"attachments": []})
    assert torch.equal(logits(checkpoints.load(tmp_path / "sliced", "float32", "cpu")), logits(model))
