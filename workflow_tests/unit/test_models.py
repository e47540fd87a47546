"""Base checkpoints: dense, complete, loadable by plain transformers, and honest about where they come from."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch
import transformers

import tiny
import tiny_gguf
from hemorrhage import files, plugins
from hemorrhage.architecture import gguf_files, models
from hemorrhage.planning import local_config

SOURCE = "path:somewhere"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny.write_folder(tmp_path_factory.mktemp("models") / "llama")


@pytest.fixture
def copy(tmp_path):
    """A model folder of the test's own."""
    return tiny.write_folder(tmp_path / "copy")


def edit_json(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def logits(model):
    with torch.inference_mode():
        return model(tiny.tokens()).logits


def test_a_base_gives_the_logits_of_its_source_with_plain_transformers(architecture, tmp_path):
    source = tiny.write_folder(tmp_path / "source", architecture)
    models.prepare(source, tmp_path / "base", source=SOURCE)
    plain = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.float32)
    assert torch.equal(logits(plain.eval()), logits(tiny.build(architecture)))
    assert "_name_or_path" not in files.read_json(tmp_path / "base" / "config.json")


def test_tied_embeddings_are_stored_once_and_stay_tied(folder, tmp_path):
    from safetensors import safe_open

    record = models.prepare(folder, tmp_path / "base", source=SOURCE)
    with safe_open(tmp_path / "base" / "model.safetensors", "pt") as stored:
        assert "lm_head.weight" not in stored.keys()  # noqa: SIM118
    model = models.load(tmp_path / "base", "float32", "cpu")
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert record["tied"]


def test_the_record_says_where_it_comes_from(folder, tmp_path):
    record = models.prepare(folder, tmp_path / "base", source=SOURCE)
    assert record == files.read_json(tmp_path / "base" / "hemorrhage.json")
    assert (record["source"], record["baseline"], record["dtype"]) == (SOURCE, "dense", "float32")
    assert record["fingerprint"] == models.weights_digest(tiny.build("llama"))


def test_half_precision_weights_are_widened(copy, tmp_path):
    tiny.build("llama").to(torch.bfloat16).save_pretrained(copy)
    record = models.prepare(copy, tmp_path / "base", source=SOURCE)
    model = models.load(tmp_path / "base", "float32", "cpu")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert torch.equal(model.lm_head.weight, tiny.build("llama").lm_head.weight.bfloat16().float())
    assert list(record["weight_types"]) == ["bfloat16"]


def test_a_loaded_model_is_ready_to_measure(folder, device):
    model = models.load(folder, "bfloat16", device, attn_implementation="eager")
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert {parameter.device.type for parameter in model.parameters()} == {device}
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert model.config._attn_implementation == "eager"


@pytest.mark.parametrize(("blocks", "message"), [(4, "weights are missing"), (2, "weights are left over")])
def test_a_config_that_does_not_fit_the_weights_is_refused(copy, blocks, message):
    edit_json(copy / "config.json", num_hidden_layers=blocks)
    with pytest.raises(ValueError, match=message):
        models.load(copy, "float32", "cpu")


def test_weights_of_another_shape_are_refused(copy):
    edit_json(copy / "config.json", intermediate_size=48)
    with pytest.raises(ValueError, match="copy: "):
        models.load(copy, "float32", "cpu")


def test_pickled_weights_need_trust(copy, tmp_path):
    (copy / "model.safetensors").unlink()
    torch.save(tiny.build("llama").state_dict(), copy / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"pickled \(pytorch_model.bin\).*trust.pickles"):
        models.prepare(copy, tmp_path / "base", source=SOURCE)
    assert not (tmp_path / "base").exists()
    models.prepare(copy, tmp_path / "base", source=SOURCE, trust=["pickles"])
    assert torch.equal(logits(models.load(tmp_path / "base", "float32", "cpu")), logits(tiny.build("llama")))


def test_code_of_a_model_needs_trust(copy):
    edit_json(copy / "config.json", auto_map={"AutoModelForCausalLM": "code.Model"})
    with pytest.raises(ValueError, match=r"code of its own .*trust.remote_code"):
        models.load(copy, "float32", "cpu")


def test_a_quantized_folder_is_no_reference(copy, tmp_path):
    edit_json(copy / "config.json", quantization_config={"quant_method": "gptq", "bits": 4})
    with pytest.raises(ValueError, match=r"must be dense.*'given'"):
        models.prepare(copy, tmp_path / "base", source=SOURCE)


def test_what_is_missing_is_one_sentence(copy, tmp_path):
    with pytest.raises(ValueError, match=r"no config\.json"):
        models.prepare(tmp_path, tmp_path / "base", source=SOURCE)
    (copy / "tokenizer.json").unlink()
    (copy / "tokenizer_config.json").unlink()
    with pytest.raises(ValueError, match="the tokenizer cannot be loaded") as caught:
        models.prepare(copy, tmp_path / "base", source=SOURCE)
    assert "\n" not in str(caught.value)
    (copy / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(ValueError, match="the model cannot be loaded"):
        models.load(copy, "float32", "cpu")


@pytest.fixture(scope="module")
def gguf_file(tmp_path_factory):
    pytest.importorskip("gguf")
    path = tmp_path_factory.mktemp("gguf") / "model.gguf"
    return path, tiny_gguf.write(path)


def test_a_gguf_becomes_a_dense_checkpoint(gguf_file, tmp_path):
    path, dense = gguf_file
    record = models.prepare(path, tmp_path / "base", source=SOURCE)
    assert record["baseline"] == "dequantised Q4_1"
    assert record["tied"]
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    assert not getattr(model.config, "quantization_config", None)
    assert torch.equal(model.model.layers[0].mlp.down_proj.weight, dense["blk.0.ffn_down"])
    assert torch.equal(model.lm_head.weight, dense["token_embd"])


def test_a_gguf_tokenizer_agrees_with_its_file(gguf_file, tmp_path):
    path, _ = gguf_file
    models.prepare(path, tmp_path / "base", source=SOURCE)
    tokenizer = models.load_tokenizer(tmp_path / "base")
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (1, 2, 2)
    text = "a1 a ½ , Ünïcode 2024 , don 't."
    ids = tokenizer(text)["input_ids"]
    assert 1 not in ids
    assert tokenizer.decode(ids) == text


def test_a_gguf_that_cannot_be_read_is_one_sentence(gguf_file, tmp_path):
    path, _ = gguf_file
    broken = {"no.gguf": b"not a GGUF file", "empty.gguf": b"", "cut.gguf": path.read_bytes()[:3000]}
    for name, content in broken.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=f"{name}: not a readable GGUF file") as caught:
            models.prepare(tmp_path / name, tmp_path / "base", source=SOURCE)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "base").exists()


def test_an_unquantized_gguf_is_called_dense(tmp_path):
    pytest.importorskip("gguf")
    tiny_gguf.write(tmp_path / "model.gguf", quantized=False)
    assert gguf_files.read(tmp_path / "model.gguf").baseline == "dense"


def test_facts_are_read_from_a_local_config(architecture, tmp_path):
    model = tiny.build(architecture)
    model.config.save_pretrained(tmp_path)
    facts = local_config.facts(tmp_path)
    assert (facts["hidden_size"], facts["num_hidden_layers"], facts["vocab_size"]) == (32, 3, tiny.VOCABULARY)
    assert facts.get("intermediate_size", 64) == 64
    assert local_config.facts(tmp_path / "nowhere") == {}


def test_loading_a_model_does_not_import_scikit_learn(folder):
    code = f"""
import sys
from hemorrhage.architecture import models
models.load({str(folder)!r}, "float32", "cpu")
print("sklearn" in sys.modules)
import sklearn
"""
    environment = os.environ | {"PYTHONPATH": str(plugins.PROJECT / "scripts")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stdout.split()) == (0, ["False"]), done.stderr
