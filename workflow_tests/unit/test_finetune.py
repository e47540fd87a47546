"""The short fine-tune: bounded, seeded, heals on its text, and leaves a plain dense model."""

import pytest
import torch
from torch.nn import functional as F

import tiny
from hemorrhage import checkpoints, plugins
from hemorrhage.architecture import attachments, targets
from hemorrhage.methods import finetuning
from tiny_data import TinyData

PLUGIN = plugins.get("modifications", "finetune")
ALL_CALLED = ("llama", "gpt2", "opt", "gpt_neox", "qwen3", "gemma2")


def loss(model, tokens):
    with torch.no_grad():
        logits = model(tokens, use_cache=False).logits[:, :-1]
    return float(F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten()))


def trained(architecture="llama", model=None, **settings):
    model = model or tiny.build(architecture)
    settings = {"tokens": 24 * 2 * 20, "batch": 2, "learning_rate": 0.01, **settings}
    return model, PLUGIN.module.apply(model, PLUGIN.settings(settings), TinyData(architecture))


def trained_on_one_sequence(model, tokens, adapter):
    """The loss of every step."""
    course = finetuning.Course(tokens, batch=1, steps=30, rate=0.01 if adapter == "lora" else 0.003, seed=0)
    train = finetuning.full if adapter == "full" else lambda *given: finetuning.lora(*given, rank=4, alpha=8)
    return train(model, course)[1]


@pytest.mark.parametrize("adapter", ["lora", "full"])
def test_the_loss_on_its_text_falls(adapter):
    tokens = TinyData().tokens("default")
    model, achieved = trained(adapter=adapter, learning_rate=0.01 if adapter == "lora" else 0.003)
    assert loss(model, tokens) < loss(tiny.build("llama"), tokens) - 0.1
    assert achieved["tokens"] == 24 * 2 * 20
    assert achieved["steps"] == 20
    assert achieved["loss_last"] < achieved["loss_first"]


@pytest.mark.parametrize("architecture", ["mixtral", "mamba"])
def test_full_training_serves_what_adapters_cannot(architecture):
    model, _ = trained(architecture, adapter="full", tokens=24 * 2 * 2)
    assert any(
        not torch.equal(a, b) for a, b in zip(model.parameters(), tiny.build(architecture).parameters(), strict=True)
    )
    with pytest.raises(ValueError, match="adapter: full"):
        trained(architecture, adapter="lora")


@pytest.mark.parametrize("adapter", ["lora", "full"])
def test_zeros_stay_zero_and_flags_stay_as_they_were(adapter):
    model = tiny.build("llama").requires_grad_(False)
    for target in targets.find(model):
        target.write(target.weight.masked_fill(target.weight.abs() < 0.1, 0))
    before = [target.weight == 0 for target in targets.find(model)]
    trained(model=model, adapter=adapter, tokens=24 * 2 * 3)
    assert all(torch.equal(target.weight == 0, mask) for target, mask in zip(targets.find(model), before, strict=True))
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert not model.training


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
@pytest.mark.parametrize("adapter", ["lora", "full"])
def test_what_is_trained_of_a_pruned_model_is_what_is_left_of_it(adapter, architecture):
    """One sequence, so the loss of the last step is that of the final model but for the last and smallest update."""
    tokens = TinyData(architecture).tokens("default")[:1]
    model = tiny.build(architecture)
    for target in targets.find(model):
        target.write(target.weight.masked_fill(target.weight.abs() < target.weight.abs().median(), 0))
    before = loss(model, tokens)
    losses = trained_on_one_sequence(model, tokens, adapter)
    assert loss(model, tokens) < before - 0.1
    assert loss(model, tokens) == pytest.approx(losses[-1], abs=0.01)


def with_rounded_inputs():
    model = tiny.build("llama")
    for target in targets.find(model):
        spec = {"kind": "activation_quantizer", "target": target.name, "bits": 4, "grid": "per_tensor", "scale": 0.1}
        attachments.attach(model, spec)
    return model


def test_the_gradient_passes_straight_through_rounded_inputs():
    model, tokens = with_rounded_inputs(), TinyData().tokens("default")[:1]
    before = model(tokens, use_cache=False).logits
    value = next(target for target in targets.find(model) if target.name.endswith("v_proj.weight"))
    F.cross_entropy(before[0, :-1], tokens[0, 1:]).backward()
    assert value.parameter.grad.abs().max() > 0  # its output reaches the loss through the rounded input of o_proj only
    with torch.no_grad():
        assert torch.equal(model(tokens, use_cache=False).logits, before)


@pytest.mark.parametrize("adapter", ["lora", "full"])
def test_a_model_with_rounded_inputs_is_trained_as_it_will_run(adapter):
    tokens, model = TinyData().tokens("default")[:1], with_rounded_inputs()
    before = loss(model, tokens)
    losses = trained_on_one_sequence(model, tokens, adapter)
    assert loss(model, tokens) < before - 0.1
    assert loss(model, tokens) == pytest.approx(losses[-1], abs=0.1)


def test_training_in_half_precision_goes_where_training_in_single_precision_goes():
    """At 2e-5 no step reaches half a unit in the last place of a bfloat16 above 2^-7: only their sum does."""
    changes = []
    for dtype in (torch.float32, torch.bfloat16):
        model = tiny.build("llama").to(torch.bfloat16).to(dtype)
        start = [target.weight.float().clone() for target in targets.find(model)]
        trained(model=model, adapter="full", learning_rate=2e-5, tokens=24 * 2 * 60)
        after = [target.weight.float() for target in targets.find(model)]
        changes.append(torch.cat([(b - a).flatten() for a, b in zip(start, after, strict=True)]))
    large = torch.cat([a.flatten() for a in start]).abs() > 2**-7
    assert torch.count_nonzero(changes[1][large]) > 0.3 * int(large.sum())
    assert torch.corrcoef(torch.stack([change[large] for change in changes]))[0, 1] > 0.7


@pytest.mark.parametrize("architecture", ALL_CALLED)
def test_the_merged_model_is_a_plain_one(architecture, tmp_path):
    model, _ = trained(architecture, tokens=24 * 2 * 2)
    assert [name for name, _ in model.named_modules()] == [name for name, _ in tiny.build(architecture).named_modules()]
    checkpoints.save(model, tmp_path / "healed", {"attachments": []})
    tokens = tiny.tokens(2, 12)
    assert loss(checkpoints.load(tmp_path / "healed", "float32", "cpu"), tokens) == loss(model, tokens)


def test_sequences_come_once_before_any_comes_again():
    course = finetuning.Course(torch.arange(6)[:, None], batch=2, steps=6, rate=1.0, seed=3)
    seen = torch.cat(list(course.batches())).flatten().tolist()
    assert sorted(seen[:6]) == sorted(seen[6:]) == list(range(6))
    assert seen == torch.cat(list(course.batches())).flatten().tolist()
    rates = [course.rate_at(step) for step in range(6)]
    assert rates[0] == 1.0
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] > 0


def test_less_than_a_step_is_refused():
    with pytest.raises(ValueError, match="tokens: 10 is less than one step of 2 sequences of 24 tokens"):
        trained(tokens=10)
