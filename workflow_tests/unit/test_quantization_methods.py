"""Round to nearest and activation quantisers against their plain formulas."""

import pytest
import torch

import tiny
from hemorrhage import plugins
from hemorrhage.architecture import attachments, targets
from hemorrhage.methods import tensors
from tiny_data import TinyData


def changed(method, architecture="llama", **settings):
    """(changed model, what was achieved)."""
    plugin = plugins.get("modifications", method)
    model = tiny.build(architecture)
    return model, plugin.module.apply(model, plugin.settings(settings), TinyData(architecture))


def logits(model):
    with torch.no_grad():
        return model(tiny.tokens(3, 20)).logits


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("symmetric", [False, True])
def test_rtn_leaves_at_most_2_to_the_bits_values_in_a_row(architecture, bits, symmetric):
    model, achieved = changed("rtn", architecture, bits=bits, symmetric=symmetric)
    error = energy = 0.0
    for new, old in zip(targets.find(model), targets.find(tiny.build(architecture)), strict=True):
        assert max(len(row.unique()) for row in new.weight) <= 2**bits
        torch.testing.assert_close(new.weight, tensors.quantize_rtn(old.weight, bits, symmetric, None))
        error += float((new.weight - old.weight).square().sum())
        energy += float(old.weight.square().sum())
    assert achieved["relative_error"] == pytest.approx((error / energy) ** 0.5, rel=1e-4)


def test_rtn_counts_the_bits_of_scales_and_zero_points():
    _, achieved = changed("rtn", bits=4, group=16)
    assert achieved["bits_per_weight"] == 4 + (16 + 4) / 16
    assert achieved["bits_per_weight"] < achieved["bits_per_parameter"] < 16


def test_rtn_error_grows_as_bits_fall_and_as_groups_widen():
    errors = [changed("rtn", bits=bits)[1]["relative_error"] for bits in (8, 6, 4, 3, 2)]
    assert errors == sorted(errors)
    errors = [changed("rtn", bits=4, group=group)[1]["relative_error"] for group in (8, 16, 32)]
    assert errors == sorted(errors)


def test_rtn_group_0_is_one_grid_a_row():
    rtn = plugins.get("modifications", "rtn")
    assert rtn.settings({"group": 0}) == rtn.settings({})


def test_a_group_that_does_not_divide_a_width_is_refused_before_anything_changes():
    plugin = plugins.get("modifications", "rtn")
    model = tiny.build("llama")
    with pytest.raises(ValueError, match=r"group: 64 does not divide the width 32 of model\.layers\.0"):
        plugin.module.apply(model, plugin.settings({"group": 64}), TinyData())
    assert torch.equal(logits(model), logits(tiny.build("llama")))
    with pytest.raises(ValueError, match="group: 128 does not divide the width 576 of hidden_size"):
        plugin.module.refuse(plugin.settings({"group": 128}), {"hidden_size": 576})
    with pytest.raises(ValueError, match="group: 64 does not divide the width 96 of intermediate_size"):
        plugin.module.refuse(plugin.settings({"group": 64}), {"hidden_size": 64, "intermediate_size": 96})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"bits": 0}, "bits: 0 is not"),
        ({"bits": 9}, "bits: 9 is not"),
        ({"bits": 3.5}, "bits: 3.5"),
        ({"symmetric": "sym"}, "symmetric: 'sym'"),
        ({"group": -1}, "group: -1"),
    ],
)
def test_rtn_refuses_wrong_settings(settings, message):
    with pytest.raises(ValueError, match=f"rtn: {message}"):
        plugins.get("modifications", "rtn").settings(settings)


def quantised_by_hand(model, bits, steps):
    """Logits of a model whose targets' inputs are rounded by hooks written here."""
    top = 2 ** (bits - 1) - 1
    for target in targets.find(model):

        def hook(_module, args, name=target.name):
            step = args[0].abs().amax(-1, keepdim=True) / top if steps is None else steps[name]
            return (torch.clamp(torch.round(args[0] / step), -top, top) * step,)

        target.module.register_forward_pre_hook(hook)
    return logits(model)


@pytest.mark.parametrize("bits", [8, 5, 4])
def test_dynamic_activations_round_every_token_on_its_own_grid(bits):
    model, achieved = changed("dynamic_activations", bits=bits)
    torch.testing.assert_close(logits(model), quantised_by_hand(tiny.build("llama"), bits, None))
    assert achieved["targets"] == len(attachments.attached(model)) == len(targets.find(model))


@pytest.mark.parametrize("bits", [8, 5, 4])
def test_static_activations_take_their_step_from_the_largest_calibration_input(bits):
    peaks = {}
    dense = tiny.build("llama")
    for target in targets.find(dense):
        target.module.register_forward_pre_hook(
            lambda _m, args, name=target.name: peaks.update({name: float(args[0].abs().max())})
        )
    with torch.no_grad():
        dense(TinyData().tokens("default"))
    steps = {name: peak / (2 ** (bits - 1) - 1) for name, peak in peaks.items()}
    model, achieved = changed("static_activations", bits=bits)
    assert {s["target"]: s["scale"] for s in attachments.attached(model)} == pytest.approx(steps, rel=1e-5)
    torch.testing.assert_close(logits(model), quantised_by_hand(tiny.build("llama"), bits, steps), rtol=1e-3, atol=1e-3)
    assert achieved["largest_input"] == pytest.approx(max(peaks.values()), rel=1e-5)


def test_a_target_that_saw_only_zeros_takes_the_largest_step():
    model = tiny.build("llama")
    model.model.layers[1].self_attn.v_proj.weight.data.zero_()
    plugin = plugins.get("modifications", "static_activations")
    achieved = plugin.module.apply(model, plugin.settings({}), TinyData())
    scales = {spec["target"]: spec["scale"] for spec in attachments.attached(model)}
    assert achieved["targets_without_input"] == 1
    assert scales["model.layers.1.self_attn.o_proj.weight"] == max(scales.values())


def test_a_per_channel_grid_clips_nothing_on_its_calibration_tokens():
    model, _ = changed("static_activations", grid="per_channel", bits=4)
    name = targets.find(model)[0].name
    first = next(spec for spec in attachments.attached(model) if spec["target"] == name)
    seen = []
    targets.find(model)[0].module.register_forward_pre_hook(lambda m, args: seen.append(args[0]), prepend=True)
    model(TinyData().tokens("default"))
    torch.testing.assert_close(torch.tensor(first["scale"]) * 7, seen[0].abs().amax((0, 1)), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("method", ["static_activations", "dynamic_activations", "smoothquant", "outlier_split"])
def test_inputs_that_no_call_shows_are_refused_in_one_sentence(method):
    with pytest.raises(ValueError, match=r"experts\..*no module call shows its input"):
        changed(method, "mixtral")
