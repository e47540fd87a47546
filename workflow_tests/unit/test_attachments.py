"""Attachments change what the model computes, on every path that reads it."""

import pytest
import torch

import tiny
from hemorrhage.architecture import attachments, targets
from hemorrhage.architecture.head import Head, check, hidden_states
from hemorrhage.methods.tensors import quantize_activation

SCALE = {"kind": "logit_scale", "factor": 0.5}


def quantizer(target, **changes):
    return {"kind": "activation_quantizer", "target": target, "bits": 4, "grid": "per_token", "scale": None, **changes}


def test_a_logit_scale_reaches_the_head_and_the_model(model, device):
    tokens = tiny.tokens(device=device)
    before = model(tokens).logits
    attachments.attach(model, SCALE)
    assert torch.equal(model(tokens).logits, before * 0.5)  # after the soft-cap, or gemma2 would differ
    assert torch.equal(model(tokens, return_dict=False)[0], before * 0.5)
    assert torch.equal(Head.of(model)(hidden_states(model, tokens)), before * 0.5)
    check(model)


def test_two_logit_scales_multiply():
    model, tokens = tiny.build(), tiny.tokens()
    before = model(tokens).logits
    attachments.attach(model, SCALE)
    attachments.attach(model, {**SCALE, "factor": 4})
    assert torch.allclose(model(tokens).logits, before * 2)
    assert Head.of(model).factor == 2


def test_generate_sees_a_logit_scale(architecture):
    model, tokens = tiny.build(architecture), tiny.tokens(1, 6)
    options = {"max_new_tokens": 4, "do_sample": False, "output_logits": True, "return_dict_in_generate": True}
    before = model.generate(tokens, **options)
    attachments.attach(model, SCALE)
    after = model.generate(tokens, **options)
    assert torch.equal(before.sequences, after.sequences)
    for a, b in zip(before.logits, after.logits, strict=True):
        assert torch.equal(a * 0.5, b)


def test_a_quantizer_rounds_the_input_of_its_target_alone(architecture):
    model, tokens = tiny.build(architecture), tiny.tokens()
    target = next(t for t in targets.find(model) if t.called)
    seen = {}
    target.module.register_forward_pre_hook(lambda m, args: seen.update(exact=args[0].clone()))
    attachments.attach(model, quantizer(target.name))
    target.module.register_forward_pre_hook(lambda m, args: seen.update(rounded=args[0].clone()))
    model(tokens)
    assert torch.equal(seen["rounded"], quantize_activation(seen["exact"], 4))
    assert not torch.equal(seen["rounded"], seen["exact"])


def test_a_static_grid_uses_its_scale():
    model, tokens = tiny.build(), tiny.tokens()
    target = targets.find(model)[0]
    attachments.attach(model, quantizer(target.name, grid="per_tensor", scale=0.5))
    seen = []
    target.module.register_forward_pre_hook(lambda m, args: seen.append(args[0]))
    model(tokens)
    assert torch.equal((seen[0] / 0.5).round(), seen[0] / 0.5)


def seen_by(target, model, spec):
    """(input of the target, what the attachment makes of it)."""
    seen = []
    target.module.register_forward_pre_hook(lambda m, args: seen.append(args[0].clone()))
    attachments.attach(model, spec)
    target.module.register_forward_pre_hook(lambda m, args: seen.append(args[0].clone()))
    model(tiny.tokens())
    return seen


def test_a_per_channel_grid_has_a_step_for_every_channel():
    model = tiny.build()
    target = targets.find(model)[0]
    steps = [0.01 * (1 + channel) for channel in range(32)]
    exact, rounded = seen_by(target, model, quantizer(target.name, grid="per_channel", scale=steps))
    step = torch.tensor(steps)
    torch.testing.assert_close(rounded, torch.clamp(torch.round(exact / step), -7, 7) * step)


def test_smoothed_inputs_are_rounded_after_their_division():
    model = tiny.build()
    target = targets.find(model)[0]
    smooth = [0.5 + channel for channel in range(32)]
    exact, rounded = seen_by(target, model, quantizer(target.name, smooth=smooth))
    torch.testing.assert_close(rounded, quantize_activation(exact / torch.tensor(smooth), 4) * torch.tensor(smooth))


def test_exact_channels_are_not_rounded_and_do_not_coarsen_the_others():
    model = tiny.build()
    target = targets.find(model)[0]
    exact, rounded = seen_by(target, model, quantizer(target.name, exact=[3, 17]))
    others = [channel for channel in range(32) if channel not in (3, 17)]
    assert torch.equal(rounded[..., [3, 17]], exact[..., [3, 17]])
    torch.testing.assert_close(rounded[..., others], quantize_activation(exact[..., others], 4))


def test_what_is_attached_is_told_and_can_be_attached_again():
    model, tokens = tiny.build(), tiny.tokens()
    assert attachments.attached(model) == []
    name = targets.find(model)[3].name
    for spec in (SCALE, quantizer(name)):
        attachments.attach(model, spec)
    assert attachments.attached(model) == [SCALE, quantizer(name)]
    other = tiny.build()
    for spec in attachments.attached(model):
        attachments.attach(other, spec)
    assert torch.equal(other(tokens).logits, model(tokens).logits)


@pytest.mark.parametrize(("architecture", "kind"), [("mixtral", "expert"), ("mamba", "functional")])
def test_a_target_without_a_call_is_refused(architecture, kind):
    model = tiny.build(architecture)
    name = next(t.name for t in targets.find(model) if t.kind == kind)
    with pytest.raises(ValueError, match="no module call shows its input"):
        attachments.attach(model, quantizer(name))
    assert attachments.attached(model) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bits": 1}, "bits: 1"),
        ({"grid": "per_row"}, "Did you mean"),
        ({"target": "model.layers.9"}, "unknown target"),
        ({"grid": "per_tensor"}, "scale"),
        ({"scale": 0.5}, "makes its own"),
        ({"bit": 4}, "unknown key"),
        ({"kind": "logit_scales"}, "Did you mean 'logit_scale'"),
        ({"grid": "per_tensor", "scale": 0}, "positive"),
        ({"grid": "per_channel", "scale": 0.5}, "scale: one number for each of the 32"),
        ({"smooth": [1.0] * 31}, "smooth"),
        ({"smooth": [1.0] * 31 + [0]}, "smooth: its numbers must be positive"),
        ({"exact": [32]}, "exact: 32"),
        ({"exact": 3}, "exact: 3 is not a list"),
    ],
)
def test_bad_specs_are_refused(changes, message):
    model = tiny.build()
    with pytest.raises(ValueError, match=message):
        attachments.attach(model, {**quantizer(targets.find(model)[0].name), **changes})
    with pytest.raises(ValueError, match="factor"):
        attachments.attach(model, {"kind": "logit_scale", "factor": -1})
