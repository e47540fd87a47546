"""Checkpoints that the libraries of deployment wrote, read with `given`: the model measured is the one they run."""

import pytest
import torch
import transformers as hf

import tiny
from hemorrhage import checkpoints, plugins
from tiny_data import TinyData

pytestmark = pytest.mark.peer
GROUP = 32


@pytest.fixture
def data(tmp_path):
    """The data of a run whose reference is a Llama that is wide enough for packing kernels."""
    config = tiny.CONFIGS["llama"](2)
    config.hidden_size, config.intermediate_size, config.num_key_value_heads = 128, 256, 4
    torch.manual_seed(0)
    hf.AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(tmp_path / "base")
    tiny.tokenizer().save_pretrained(tmp_path / "base")
    result = TinyData()
    result.base, result.trusted = tmp_path / "base", ()
    return result


def given(folder, data):
    """The model of a folder, checked to be dense, savable and the same when it is loaded again."""
    plugin = plugins.get("modifications", "given")
    model = plugin.module.load(plugin.settings({"path": str(folder)}), data)
    assert {type(module) for module in model.modules() if hasattr(module, "in_features")} == {torch.nn.Linear}
    checkpoints.save(model, folder.parent / "saved", {"attachments": []})
    assert torch.equal(logits(checkpoints.load(folder.parent / "saved", "float32", "cpu")), logits(model))
    return model


def logits(model):
    with torch.no_grad():
        return model(tiny.tokens(4, 32)).logits.float()


def mean_kl(model, other):
    log_p, log_q = logits(model).log_softmax(-1), logits(other).log_softmax(-1)
    return float((log_p.exp() * (log_p - log_q)).sum(-1).mean())


def test_gptq_of_gptqmodel(data, tmp_path, monkeypatch):
    monkeypatch.setenv("GPTQMODEL_CPU_WORKERS", "2")
    monkeypatch.chdir(tmp_path)  # it writes logs where it runs
    gptqmodel = pytest.importorskip("gptqmodel")
    packing = gptqmodel.GPTQModel.load(str(data.base), gptqmodel.QuantizeConfig(bits=4, group_size=GROUP))
    rows = tiny.tokens(16, 64)
    packing.quantize([{"input_ids": row, "attention_mask": torch.ones_like(row)} for row in rows], batch_size=1)
    packing.save(str(tmp_path / "packed"))
    model = given(tmp_path / "packed", data)
    kernel = hf.AutoModelForCausalLM.from_pretrained(
        tmp_path / "packed",
        dtype=torch.float32,
        device_map={"": "cpu"},
        quantization_config=hf.GPTQConfig(bits=4, backend="torch"),
    )
    dense = hf.AutoModelForCausalLM.from_pretrained(data.base, dtype=torch.float32)
    # The kernel unpacks the same weights in half precision: its distance is far below the damage of 4 bits.
    assert mean_kl(model, kernel) < 0.01 * mean_kl(dense, model)
    for layer in model.model.layers:
        codes = layer.mlp.down_proj.weight.reshape(128, -1, GROUP)
        assert max(len(group.unique()) for row in codes for group in row) <= 2**4


@pytest.mark.parametrize("bits", [4, 8])
def test_bitsandbytes(bits, data, tmp_path):
    pytest.importorskip("bitsandbytes")
    config = hf.BitsAndBytesConfig(load_in_4bit=bits == 4, load_in_8bit=bits == 8, bnb_4bit_quant_type="nf4")
    packing = hf.AutoModelForCausalLM.from_pretrained(
        data.base, dtype=torch.float32, quantization_config=config, device_map={"": "cpu"}
    )
    packing.save_pretrained(tmp_path / "packed")
    model = given(tmp_path / "packed", data)
    dense = hf.AutoModelForCausalLM.from_pretrained(data.base, dtype=torch.float32)
    weight, original = (m.model.layers[0].mlp.down_proj.weight for m in (model, dense))
    error = float(((weight - original).norm() / original.norm()).detach())
    assert error < {4: 0.12, 8: 0.01}[bits]
    assert mean_kl(dense, model) > 0


def test_compressed_tensors(data, tmp_path):
    pytest.importorskip("compressed_tensors")
    from compressed_tensors.compressors import ModelCompressor
    from compressed_tensors.quantization import (
        QuantizationArgs,
        QuantizationConfig,
        QuantizationScheme,
        apply_quantization_config,
    )

    model = hf.AutoModelForCausalLM.from_pretrained(data.base, dtype=torch.float32)
    args = QuantizationArgs(num_bits=4, type="int", symmetric=True, strategy="group", group_size=GROUP)
    apply_quantization_config(
        model,
        QuantizationConfig(
            config_groups={"group_0": QuantizationScheme(targets=["Linear"], weights=args)},
            ignore=["lm_head"],
            quantization_status="frozen",
            format="pack-quantized",
        ),
    )
    expected = {}
    for name, module in model.named_modules():
        if getattr(module, "quantization_scheme", None) is not None:
            groups = module.weight.detach().reshape(module.out_features, -1, GROUP)
            scale = groups.abs().amax(-1) / 7
            module.weight_scale.data.copy_(scale)
            expected[name] = (torch.round(groups / scale[..., None]) * scale[..., None]).reshape(module.weight.shape)
    compressor = ModelCompressor.from_pretrained_model(model)
    compressor.compress_model(model)
    model.save_pretrained(tmp_path / "packed")
    compressor.update_config(str(tmp_path / "packed"))
    found = given(tmp_path / "packed", data)
    assert expected
    for name, weight in expected.items():
        torch.testing.assert_close(found.get_submodule(name).weight, weight, rtol=1e-4, atol=1e-6)
