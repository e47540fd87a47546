"""The head gives the model's own logits from the input of its output embedding."""

import pytest
import torch
import transformers as hf

import tiny
from hemorrhage.architecture import attachments
from hemorrhage.architecture.head import Head, check, hidden_states

SMALL = {
    "vocab_size": 128,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
SCALED = {
    "cohere": lambda: hf.CohereConfig(**SMALL, logit_scale=0.25, pad_token_id=0),
    "granite": lambda: hf.GraniteConfig(**SMALL, logits_scaling=4.0),
}


def built(config):
    torch.manual_seed(0)
    return hf.AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_head_gives_the_logits_of_the_model(model, device, dtype):
    model, tokens = model.to(dtype), tiny.tokens(device=device)
    hidden = hidden_states(model, tokens)
    logits = Head.of(model)(hidden)
    assert hidden.dtype == dtype and hidden.shape == (4, 16, 32)
    assert logits.dtype == torch.float32
    assert torch.equal(logits, model(tokens).logits.float())
    check(model)


@pytest.mark.parametrize("name", SCALED)
def test_the_architectures_own_scale_is_known(name):
    model = built(SCALED[name]())
    assert Head.of(model).scale == 0.25
    check(model, tiny.tokens())


def test_soft_cap_and_bias_are_known():
    assert Head.of(tiny.build("gemma2")).softcap == 5.0
    model = built(hf.PhiConfig(**SMALL))
    torch.nn.init.normal_(model.lm_head.bias)
    assert Head.of(model).bias is not None
    check(model)


def test_another_step_after_the_base_model_is_refused():
    model = tiny.build("llama")
    model.lm_head.register_forward_hook(lambda module, args, out: out + out.roll(1, -1))
    with pytest.raises(ValueError, match=r"LlamaForCausalLM: .* not supported\.$"):
        check(model)


@pytest.mark.parametrize("max_shard_size", ["5GB", "20KB"])
def test_a_folder_gives_the_same_head(architecture, tmp_path, device, max_shard_size, monkeypatch):
    model = tiny.build(architecture, device=device)
    model.save_pretrained(tmp_path, max_shard_size=max_shard_size)
    monkeypatch.setattr(hf.AutoModelForCausalLM, "from_pretrained", None)  # the whole model is not needed
    hidden = hidden_states(model, tiny.tokens(device=device))
    head = Head.load(tmp_path, torch.float32, device)
    assert torch.equal(head(hidden), Head.of(model)(hidden))
    assert Head.load(tmp_path, torch.bfloat16, device).weight.dtype == torch.bfloat16


def test_a_folder_with_bias_gives_the_bias(tmp_path):
    model = built(hf.PhiConfig(**SMALL))
    torch.nn.init.normal_(model.lm_head.bias)
    model.save_pretrained(tmp_path)
    assert torch.equal(Head.load(tmp_path, torch.float32, "cpu").bias, model.lm_head.bias)


def test_a_folder_that_does_not_tell_is_loaded_whole(tmp_path, monkeypatch):
    model, tokens = tiny.build("llama"), tiny.tokens()
    model.save_pretrained(tmp_path)
    monkeypatch.setattr("hemorrhage.architecture.head._names", lambda config: None)
    hidden = hidden_states(model, tokens)
    assert torch.equal(Head.load(tmp_path, torch.float32, "cpu")(hidden), Head.of(model)(hidden))


def test_a_missing_folder_is_one_sentence(tmp_path):
    with pytest.raises(OSError, match=r"there is no config\.json"):
        Head.load(tmp_path / "missing", torch.float32, "cpu")


def test_attachments_in_the_folder_are_read(tmp_path):
    model = tiny.build("gemma2")
    attachments.attach(model, {"kind": "logit_scale", "factor": 0.5})
    model.save_pretrained(tmp_path)
    (tmp_path / "hemorrhage.json").write_text('{"attachments": [{"kind": "logit_scale", "factor": 0.5}]}')
    hidden = hidden_states(model, tiny.tokens())
    assert torch.equal(Head.load(tmp_path, torch.float32, "cpu")(hidden), model(tiny.tokens()).logits)
