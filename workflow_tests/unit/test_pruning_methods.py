"""Magnitude, Wanda and gradient-aware pruning against their plain formulas."""

import math

import pytest
import torch

import tiny
from hemorrhage import plugins
from hemorrhage.activations import calibration, gradients
from hemorrhage.architecture import targets
from hemorrhage.modifications.pruning.gradient_aware import gradient_weight
from tiny_data import TinyData

SPARSITY = 0.4


def pruned(method, architecture="llama", data=None, **settings):
    """(changed model, what was achieved)."""
    plugin = plugins.get("modifications", method)
    model = tiny.build(architecture)
    return model, plugin.module.apply(model, plugin.settings(settings), data or TinyData(architecture))


def lowest_of_rows(score, sparsity=SPARSITY):
    """The mask of a full sort, for scores without ties."""
    k = math.floor(sparsity * score.shape[1] + 0.5)
    return torch.zeros_like(score, dtype=torch.bool).scatter(1, score.argsort(1)[:, :k], True)


def norms_seen(model, tokens):
    """‖x‖ as root mean square per input channel of every target in ``model``, by name."""
    norms = {}

    def note(group):
        norms.update({target.name: group.square_mean().sqrt() if group.rows else None for target in group.targets})

    calibration.walk(model, tokens, note)
    return norms


def test_magnitude_compares_the_whole_matrix(architecture):
    model, _ = pruned("magnitude", architecture, sparsity=SPARSITY)
    for new, old in zip(targets.find(model), targets.find(tiny.build(architecture)), strict=True):
        sizes = old.weight.abs().flatten()
        k = math.floor(SPARSITY * sizes.numel() + 0.5)
        expected = sizes.sort().values[k - 1]
        assert torch.equal(new.weight == 0, old.weight.abs() <= expected)
        assert torch.equal(new.weight[new.weight != 0], old.weight[new.weight != 0])


def test_wanda_scores_by_the_inputs_that_the_pruned_targets_before_make(architecture):
    model, _ = pruned("wanda", architecture, sparsity=SPARSITY)
    # The pruned model shows each target the very inputs that it saw while it was pruned.
    norms = norms_seen(model, TinyData(architecture).tokens("default"))
    for new, old in zip(targets.find(model), targets.find(tiny.build(architecture)), strict=True):
        norm = norms[new.name]
        score = old.weight.abs() * (norm if norm is not None else 1.0)
        assert (lowest_of_rows(score) == (new.weight == 0)).float().mean() > 0.998, new.name


def test_wanda_differs_from_magnitude_per_row_only_by_the_norm():
    model, _ = pruned("wanda", sparsity=SPARSITY)
    first = targets.find(model)[0]
    dense = targets.find(tiny.build("llama"))[0].weight
    assert not torch.equal(first.weight == 0, lowest_of_rows(dense.abs()))


def test_block_order_sees_the_dense_block():
    model, _ = pruned("wanda", sparsity=SPARSITY, order="block")
    linear, _ = pruned("wanda", sparsity=SPARSITY)
    in_block_0 = [(a, b) for a, b in zip(targets.find(model), targets.find(linear), strict=True) if a.block == 0]
    norms = norms_seen(tiny.build("llama"), TinyData().tokens("default"))
    for (new, _), old in zip(in_block_0, targets.find(tiny.build("llama")), strict=False):
        assert torch.equal(new.weight == 0, lowest_of_rows(old.weight.abs() * norms[new.name]))
    assert any(not torch.equal(a.weight, b.weight) for a, b in in_block_0)


def test_experts_without_tokens_fall_back_to_the_weights_and_are_counted():
    data = TinyData("mixtral")
    data.tokens = lambda name: tiny.tokens(1, 2)  # 2 tokens choose at most 4 of the 4 experts, seldom all
    model, achieved = pruned("wanda", "mixtral", data, sparsity=SPARSITY)
    norms = norms_seen(model, data.tokens("default"))
    unseen = [name for name, norm in norms.items() if norm is None]
    assert unseen
    assert achieved["targets_without_tokens"] == len(unseen)
    old = {target.name: target.weight for target in targets.find(tiny.build("mixtral"))}
    for target in targets.find(model):
        if target.name in unseen:
            assert torch.equal(target.weight == 0, lowest_of_rows(old[target.name].abs()))


@pytest.mark.parametrize("norm", ["l1", "l2"])
def test_gradient_aware_equals_the_published_score_in_the_published_setting(norm, monkeypatch):
    """On 128 samples of 2048 tokens the rescaled score is GBLM's own, up to one common factor."""
    generator = torch.Generator().manual_seed(0)
    samples, length = 128, 2048
    x_rms = torch.rand(6, generator=generator)
    weight = torch.randn(4, 6, generator=generator)
    gradient = 1e-3 * torch.randn(samples, 4, 6, generator=generator)
    mean = gradient.abs().mean(0) if norm == "l1" else gradient.square().mean(0).sqrt()
    total = (100 * gradient).abs().sum(0) if norm == "l1" else (100 * gradient).square().sum(0).sqrt()
    published = weight.abs() * (x_rms * math.sqrt(length)) + weight.abs() * total
    ours = weight.abs() * (x_rms + gradient_weight(100, norm, length) * mean)
    torch.testing.assert_close(published / ours, torch.full_like(ours, math.sqrt(length)))


def test_the_gradient_weight_falls_with_shorter_samples():
    assert gradient_weight(100, "l2", 512) == pytest.approx(gradient_weight(100, "l2", 2048) / 2)


def test_gradient_aware_prunes_by_both_terms():
    data, scale = TinyData(), 2000.0
    model, achieved = pruned("gradient_aware", data=data, sparsity=SPARSITY, scale=scale)
    tokens = data.tokens("default")
    collected = gradients.collect(tiny.build("llama"), tokens, "l2")
    factor = gradient_weight(scale, "l2", tokens.shape[1])
    assert achieved["gradient_weight"] == factor
    norms = norms_seen(model, tokens)
    for new, old in zip(targets.find(model), targets.find(tiny.build("llama")), strict=True):
        score = old.weight.abs() * (norms[new.name] + factor * collected[new.name])
        assert (lowest_of_rows(score) == (new.weight == 0)).float().mean() > 0.998, new.name


def test_gradient_aware_with_scale_0_is_wanda():
    wanda, _ = pruned("wanda", sparsity=SPARSITY)
    ours, _ = pruned("gradient_aware", sparsity=SPARSITY, scale=0)
    assert all(torch.equal(a.weight, b.weight) for a, b in zip(targets.find(wanda), targets.find(ours), strict=True))


def test_gradient_aware_refuses_gradients_of_another_model():
    data = TinyData()
    data.gradients = lambda name, norm: gradients.collect(tiny.build("llama", blocks=2), data.tokens(name), norm)
    with pytest.raises(ValueError, match=r"no matrix of .* for model\.layers\.2"):
        pruned("gradient_aware", data=data, sparsity=SPARSITY)


def test_weights_that_were_zero_are_pruned_first_and_told_apart():
    model = tiny.build("llama")
    plugin = plugins.get("modifications", "magnitude")
    plugin.module.apply(model, plugin.settings({"sparsity": 0.5}), TinyData())
    achieved = plugin.module.apply(model, plugin.settings({"sparsity": 0.3}), TinyData())
    assert achieved["sparsity"] == pytest.approx(0.3, abs=1e-3)
    assert achieved["zeros"] == pytest.approx(0.5, abs=1e-3)
    assert achieved["relative_error"] == 0


@pytest.mark.parametrize("method", ["magnitude", "wanda", "gradient_aware"])
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sparsity": 1.5}, "sparsity: 1.5 is outside"),
        ({}, "sparsity: give"),
        ({"pattern": "4:2"}, "pattern: '4:2'"),
        ({"pattern": "2/4"}, "pattern: '2/4'"),
        ({"pattern": "2:4", "sparsity": 0.7}, "sparsity: 0.7 contradicts"),
    ],
)
def test_wrong_settings_are_refused(method, settings, message):
    with pytest.raises(ValueError, match=f"{method}: {message}"):
        plugins.get("modifications", method).settings(settings)


def test_a_pattern_that_does_not_divide_the_width_is_refused_by_the_config_alone():
    plugin = plugins.get("modifications", "wanda")
    with pytest.raises(ValueError, match="groups of 7 do not divide the width 576 of hidden_size"):
        plugin.module.refuse(plugin.settings({"pattern": "3:7"}), {"hidden_size": 576})


def test_chunks_prune_the_same_weights():
    whole, _ = pruned("wanda", sparsity=SPARSITY)
    chunked, _ = pruned("wanda", data=TinyData(chunk=3), sparsity=SPARSITY)
    for one, other in zip(targets.find(whole), targets.find(chunked), strict=True):
        assert (one.weight == other.weight).float().mean() > 0.999
