"""Collected gradients against plain autograd over all parameters."""

import pytest
import torch

import tiny
from hemorrhage.activations import gradients
from hemorrhage.architecture import targets


def plain(model, tokens, norm):
    """One backward pass a sample over all parameters, then the norm over samples."""
    every = {}
    for sample in tokens:
        model.zero_grad()
        model(sample[None], labels=sample[None], use_cache=False).loss.backward()
        for name, parameter in model.named_parameters():
            if parameter.grad is not None:
                every.setdefault(name, []).append(parameter.grad.clone())
    model.zero_grad()
    stacked = {name: torch.stack(values) for name, values in every.items()}
    return {
        name: value.abs().mean(0) if norm == "l1" else value.square().mean(0).sqrt() for name, value in stacked.items()
    }


@pytest.mark.parametrize("norm", ["l1", "l2"])
def test_collect_equals_plain_autograd(model, device, norm):
    tokens = tiny.tokens(3, device=device)
    expected = plain(model, tokens, norm)
    found = gradients.collect(model, tokens, norm)
    wanted = targets.find(model)
    assert list(found) == [target.name for target in wanted]
    for target in wanted:
        whole = expected[target.name.split("[")[0]]
        own = whole if target.expert is None else whole[target.expert]
        torch.testing.assert_close(found[target.name], own.T if target.transposed else own, rtol=1e-4, atol=1e-8)
        assert found[target.name].shape == (target.out_features, target.in_features)


def test_collect_leaves_the_model_as_it_was(device):
    model = tiny.build("llama", device=device)
    model.lm_head.weight.requires_grad_(False)
    before = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    gradients.collect(model, tiny.tokens(1, device=device), "l2")
    assert {name: parameter.requires_grad for name, parameter in model.named_parameters()} == before
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(parameter._post_accumulate_grad_hooks for parameter in model.parameters())


def test_only_one_gradient_exists_at_a_time(device):
    model = tiny.build("llama", device=device)
    alive = []
    parameters = [target.parameter for target in targets.find(model)]
    original = gradients._only

    def spying(model, chosen, add):
        def spy(parameter):
            alive.append(sum(p.grad is not None for p in parameters))
            add(parameter)

        return original(model, chosen, spy)

    gradients._only = spying
    try:
        gradients.collect(model, tiny.tokens(2, device=device), "l2")
    finally:
        gradients._only = original
    assert len(alive) == 2 * len(parameters)
    assert max(alive) == 1


def test_an_infinite_gradient_is_refused(device):
    model = tiny.build("llama", device=device)
    model.lm_head.weight.data[5, 0] = float("inf")
    with pytest.raises(ValueError, match="not finite"):
        gradients.collect(model, tiny.tokens(2, device=device), "l2")


def test_an_unknown_norm_is_refused():
    with pytest.raises(ValueError, match="norm 'l3'"):
        gradients.collect(tiny.build("llama"), tiny.tokens(1), "l3")
