"""Regional gradients and the gradient scores against autograd and plain formulas."""

import torch

import tiny
from hemorrhage import plugins
from hemorrhage.activations import calibration, gradients, regional
from hemorrhage.architecture import targets
from hemorrhage.methods import scores, tensors
from tiny_data import TinyData


def test_they_are_the_gradients_of_the_norm_of_the_blocks_own_output():
    model, tokens = tiny.build("llama"), tiny.tokens(3, 10)
    found = regional.gradients(model, tokens)
    inputs = []
    handle = model.model.layers[1].register_forward_pre_hook(
        lambda module, args, kwargs: inputs.append((args, kwargs)), with_kwargs=True
    )
    with torch.no_grad():
        for sample in tokens:
            model.model(sample[None], use_cache=False)
    handle.remove()
    weight = model.model.layers[1].mlp.down_proj.weight
    total = torch.zeros_like(weight)
    for args, kwargs in inputs:
        out = model.model.layers[1](*args, **kwargs)
        (gradient,) = torch.autograd.grad((out if isinstance(out, torch.Tensor) else out[0]).norm(), weight)
        total += gradient.square()
    torch.testing.assert_close(found["model.layers.1.mlp.down_proj.weight"], (total / 3).sqrt())


def test_every_target_has_one_and_the_model_is_left_alone(architecture):
    model = tiny.build(architecture)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    asked = [parameter.requires_grad for parameter in model.parameters()]
    found = regional.gradients(model, tiny.tokens(4, 12))
    for target in targets.find(model):
        assert found[target.name].shape == target.weight.shape
        assert target.kind == "expert" or found[target.name].any()
    assert [parameter.requires_grad for parameter in model.parameters()] == asked
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(block._forward_pre_hooks for block in targets.blocks(model)[1])


def changed(method, **settings):
    model, plugin = tiny.build(), plugins.get("modifications", method)
    plugin.module.apply(model, plugin.settings({"sparsity": 0.4, **settings}), TinyData())
    return model


def test_wanda_plus_with_scale_0_is_wanda_and_otherwise_not():
    wanda, none, some = changed("wanda"), changed("wanda_plus", scale=0), changed("wanda_plus", scale=1000)
    pairs = list(zip(targets.find(wanda), targets.find(none), targets.find(some), strict=True))
    assert all(torch.equal(a.weight, b.weight) for a, b, _ in pairs)
    assert not all(torch.equal(a.weight, c.weight) for a, _, c in pairs)


def test_wanda_plus_adds_the_regional_gradient_to_the_norm():
    data, model = TinyData(), tiny.build()
    tokens = data.tokens("default")
    regions, norms = regional.gradients(model, tokens), {}
    calibration.walk(
        model, tokens, lambda group: norms.update({target.name: group.square_mean().sqrt() for target in group.targets})
    )
    first = targets.find(model)[0]
    published = first.weight.abs() * (norms[first.name] * 24**0.5 + 100 * regions[first.name])
    expected = tensors.keep_mask(published, 0.4)
    assert ((targets.find(changed("wanda_plus"))[0].weight != 0) == expected).float().mean() > 0.998


def test_pruner_zero_and_taylor_follow_their_formulas():
    data = TinyData()
    collected = {norm: gradients.collect(tiny.build(), data.tokens("default"), norm) for norm in ("l1", "l2")}
    models = changed("pruner_zero"), changed("taylor")
    for old, zero, taylor in zip(targets.find(tiny.build()), *map(targets.find, models), strict=True):
        gradient = collected["l2"][old.name]
        scaled = (gradient - gradient.min()) / (gradient.max() - gradient.min())
        assert torch.equal(zero.weight != 0, tensors.keep_mask((old.weight * old.weight).abs() * scaled, 0.4))
        score = (old.weight * collected["l1"][old.name]).abs()
        assert torch.equal(taylor.weight != 0, tensors.keep_mask(score, 0.4, "matrix"))


def test_equal_gradients_leave_the_squares_of_the_weights():
    weight = torch.randn(3, 5, generator=torch.Generator().manual_seed(0))
    assert torch.equal(scores.pruner_zero(weight, torch.full((3, 5), 2.0)), weight.square())
