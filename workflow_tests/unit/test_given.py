"""Ready checkpoints: dense, exported with attachments, packed; and what is refused."""

import json

import pytest
import torch

import tiny
import tiny_gguf
from hemorrhage import checkpoints, files, plugins
from hemorrhage.architecture import attachments, models, packed
from tiny_data import TinyData

METHOD = plugins.get("modifications", "given")


@pytest.fixture
def data(tmp_path):
    """The data of a run whose reference is a tiny Llama with its tokenizer."""
    result = TinyData()
    result.base = tiny.write_folder(tmp_path / "base")
    result.trusted = ()
    return result


def load(path, data):
    """(model, what was achieved)."""
    settings = METHOD.settings({"path": str(path)})
    model = METHOD.module.load(settings, data)
    return model, METHOD.module.apply(model, settings, data)


def logits(model):
    with torch.no_grad():
        return model(tiny.tokens(3, 20)).logits


@pytest.mark.parametrize("prefix", ["", "path:"])
def test_a_dense_folder_is_loaded_as_it_is(prefix, data, tmp_path):
    tiny.write_folder(tmp_path / "other", seed=7)
    model, achieved = load(f"{prefix}{tmp_path / 'other'}", data)
    assert torch.equal(logits(model), logits(tiny.build("llama", seed=7)))
    size = (tmp_path / "other" / "model.safetensors").stat().st_size
    assert achieved == {"storage": "dense", "bytes_on_disk": size}
    assert not model.training


def test_the_reference_itself_comes_back_bit_for_bit(data):
    assert torch.equal(logits(load(data.base, data)[0]), logits(tiny.build("llama")))


def test_attachments_of_an_exported_checkpoint_come_back(data, tmp_path):
    model = tiny.build("llama")
    for method, settings in (("dynamic_activations", {"bits": 5}), ("rtn", {"bits": 4})):
        plugin = plugins.get("modifications", method)
        plugin.module.apply(model, plugin.settings(settings), data)
    attachments.attach(model, {"kind": "logit_scale", "factor": 0.8})
    checkpoints.save(model, tmp_path / "exported", {"attachments": attachments.attached(model)})
    found, _ = load(tmp_path / "exported", data)
    assert torch.equal(logits(found), logits(model))
    assert attachments.attached(found) == attachments.attached(model)


def test_a_recipe_goes_on_after_it(data, tmp_path):
    tiny.write_folder(tmp_path / "other", seed=7)
    recipe = [
        {"method": "given", "settings": {"path": str(tmp_path / "other")}},
        {"method": "drop_blocks", "settings": {"blocks": 1, "where": "first"}},
    ]
    model, record = checkpoints.follow(recipe, data)
    assert record["layer_map"] == [1, 2]
    assert len(model.model.layers) == 2


def test_a_gguf_file_is_its_own_dequantised_reference(tmp_path):
    pytest.importorskip("gguf")
    tiny_gguf.write(tmp_path / "model.gguf")
    data = TinyData()
    data.base, data.trusted = tmp_path / "base", ()
    models.prepare(tmp_path / "model.gguf", data.base, source="path:model.gguf")
    model, achieved = load(tmp_path / "model.gguf", data)
    size = (tmp_path / "model.gguf").stat().st_size
    assert achieved == {"storage": "dequantised Q4_1", "bytes_on_disk": size}
    reference = models.load(data.base, "float32", "cpu")
    assert torch.equal(logits(model), logits(reference))
    checkpoints.save(model, tmp_path / "saved", {"attachments": []})
    assert torch.equal(logits(checkpoints.load(tmp_path / "saved", "float32", "cpu")), logits(reference))


def test_another_tokenizer_is_refused(data, tmp_path):
    other = tiny.write_folder(tmp_path / "other")
    tokenizer = files.read_json(other / "tokenizer.json")
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    (other / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(ValueError, match=r"tokenizer of .*other is not the reference's .*4 entries differ"):
        load(other, data)


def test_a_smaller_vocabulary_without_a_tokenizer_is_refused(data, tmp_path):
    model = tiny.build("llama")
    model.resize_token_embeddings(100)
    model.save_pretrained(tmp_path / "other")
    with pytest.raises(ValueError, match="embeds 100 tokens"):
        load(tmp_path / "other", data)


def test_a_missing_folder_is_refused(data, tmp_path):
    with pytest.raises(ValueError, match="does not exist"):
        load(tmp_path / "nothing", data)


def as_if_packed(folder, **quantization):
    """Write a quantization_config into a dense folder."""
    config = files.read_json(folder / "config.json")
    files.write_json(folder / "config.json", {**config, "quantization_config": quantization})
    return folder


def test_a_missing_package_is_named(data, tmp_path, monkeypatch):
    folder = as_if_packed(tiny.write_folder(tmp_path / "other"), quant_method="gptq", bits=4)
    monkeypatch.setitem(packed.PACKAGES, "gptq", ("no_such_package", "torch"))
    with pytest.raises(ValueError, match=r"packed with gptq; to read them install no_such_package\."):
        load(folder, data)


def test_an_unknown_packing_is_refused(data, tmp_path):
    folder = as_if_packed(tiny.write_folder(tmp_path / "other"), quant_method="gpqt")
    with pytest.raises(ValueError, match=r"unknown packing method of .*'gpqt'. Did you mean 'gptq'"):
        load(folder, data)


def test_quantised_activations_of_a_library_are_refused(data, tmp_path):
    group = {"weights": {"num_bits": 8}, "input_activations": {"num_bits": 8}}
    folder = as_if_packed(
        tiny.write_folder(tmp_path / "other"), quant_method="compressed-tensors", config_groups={"group_0": group}
    )
    with pytest.raises(ValueError, match="quantises activations too"):
        load(folder, data)


@pytest.mark.parametrize("path", ["", "  ", None, 4])
def test_a_path_that_names_nothing_is_refused(path):
    with pytest.raises(ValueError, match="given: path"):
        METHOD.settings({"path": path})
