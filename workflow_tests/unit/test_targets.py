"""The targets: found on every architecture, shown as [out, in], written in place."""

import pytest
import torch

import tiny
from hemorrhage.architecture import targets

PER_BLOCK = {"llama": 7, "gpt2": 4, "opt": 6, "gpt_neox": 4, "qwen3": 7, "gemma2": 7, "mixtral": 4 + 2 * 4, "mamba": 4}


def test_every_matrix_of_the_blocks_is_found(model, architecture):
    found = targets.find(model)
    assert len(found) == 3 * PER_BLOCK[architecture]
    assert [t.block for t in found] == sorted(t.block for t in found)
    assert len({t.name for t in found}) == len(found)


def test_every_parameter_is_accounted_for(model):
    reasons = targets.account(model)
    path, layers = targets.blocks(model)
    matrices = [f"{path}.{name}" for name, parameter in layers.named_parameters() if parameter.dim() in (2, 3)]
    assert sorted(matrices) == sorted(reasons)
    assert targets.UNKNOWN not in reasons.values()


def test_no_router_kernel_or_state_is_a_target():
    reasons = targets.account(tiny.build("mixtral"))
    assert {why for name, why in reasons.items() if ".gate." in name} == {"router"}
    reasons = targets.account(tiny.build("mamba"))
    assert {why for name, why in reasons.items() if "conv1d" in name} == {"convolution kernel"}
    assert {why for name, why in reasons.items() if "A_log" in name} == {"state-space parameter"}


def test_names_lead_to_the_parameter(model):
    for target in targets.find(model):
        stored = model.get_parameter(target.name.split("[")[0])
        assert stored is target.parameter
        assert model.get_submodule(target.module_name) is target.module


def test_the_weight_is_out_by_in(architecture):
    model = tiny.build(architecture)
    for target in targets.find(model):
        if target.kind == "expert":
            continue
        x = torch.randn(5, target.in_features)
        bias = getattr(target.module, "bias", None)
        plain = x @ target.weight.T + (0 if bias is None else bias)
        assert torch.allclose(target.module(x), plain, atol=1e-5)


def test_writing_changes_the_model_and_nothing_else(model):
    found = targets.find(model)
    for target in found:
        before = {name: parameter.clone() for name, parameter in model.named_parameters()}
        pointer = target.parameter.data_ptr()
        target.write(target.weight + 1)
        changed = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
        assert changed == {target.name.split("[")[0]}
        assert (model.get_parameter(*changed) != before[min(changed)]).sum() == target.weight.numel()
        assert target.parameter.data_ptr() == pointer


def test_a_wrong_shape_or_value_is_refused():
    target = targets.find(tiny.build("gpt2"))[0]
    with pytest.raises(ValueError, match=r"shape \[32, 96\], not \[96, 32\]"):
        target.write(torch.zeros(32, 96))
    with pytest.raises(ValueError, match="not finite"):
        target.write(torch.full((96, 32), float("nan")))


def test_transposed_experts_are_shown_as_out_by_in():
    import transformers as hf

    config = hf.GptOssConfig(
        vocab_size=128,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        head_dim=8,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_local_experts=4,
        num_experts_per_tok=2,
    )
    found = [t for t in targets.find(hf.AutoModelForCausalLM.from_config(config)) if t.kind == "expert"]
    assert {tuple(t.weight.shape) for t in found} == {(96, 32), (32, 48)}
