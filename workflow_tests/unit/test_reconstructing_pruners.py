"""SparseGPT, ADMM and RIA against their plain formulas, on equal calibration tensors, and on hard input."""

import math

import pytest
import torch
from plain_solvers import plain_sparsegpt

import tiny
from hemorrhage import plugins
from hemorrhage.architecture import targets
from hemorrhage.methods import alternating, factors, scores, surgeon, tensors
from tiny_data import TinyData

METHODS = ("sparsegpt", "admm", "ria", "dsnot", "pruner_zero", "taylor", "wanda_plus")


def problem(out=24, width=40, rows=400, seed=0):
    """(weight, gram of correlated inputs)."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(width, width, generator=generator) + 2 * torch.eye(width)
    x = torch.randn(rows, width, generator=generator) @ mixing
    return torch.randn(out, width, generator=generator), x.T @ x / rows


def layer_error(weight, new, gram):
    return float((((weight - new) @ gram) * (weight - new)).sum())


@pytest.mark.parametrize(
    ("sparsity", "groups"),
    [
        (0.3, None),
        (0.6, None),
        (0.5, (2, 4)),
        (0.5, (4, 8)),
        (0.75, (1, 4)),
    ],
)
@pytest.mark.parametrize("block", [128, 16])
def test_sparsegpt_equals_the_reference_steps(sparsity, groups, block, device):
    weight, gram = problem()
    factor, damping = factors.inverse_factor(gram.to(device), 0.01)
    assert damping == 0.01
    ((keep, new),) = surgeon.prune([weight.to(device)], factor, [sparsity], groups, block)
    drop, expected = plain_sparsegpt(weight, gram, sparsity, groups, block=block)
    assert (keep.cpu() == ~drop).float().mean() > 0.998
    assert layer_error(weight, new.cpu(), gram) == pytest.approx(layer_error(weight, expected, gram), rel=0.01)


def test_matrices_that_share_an_input_are_solved_as_if_alone():
    (one, gram), (other, _) = problem(), problem(out=10, seed=3)
    factor, _ = factors.inverse_factor(gram, 0.01)
    together = surgeon.prune([one, other], factor, [0.5, 0.7])
    for weight, share, (keep, new) in zip((one, other), (0.5, 0.7), together, strict=True):
        ((keep_alone, alone),) = surgeon.prune([weight], factor, [share])
        assert torch.equal(keep, keep_alone)
        torch.testing.assert_close(new, alone)


def test_the_blocks_of_a_wide_matrix_have_the_asked_sparsity_together():
    weight, gram = problem(out=7, width=90)
    ((keep, _),) = surgeon.prune([weight], factors.inverse_factor(gram, 0.01)[0], [0.35], None, 16)
    assert int((~keep).sum()) == math.floor(0.35 * (7 * 90) + 0.5)


@pytest.mark.parametrize("groups", [None, (2, 4)])
def test_updates_leave_less_error_than_the_mask_of_wanda(groups):
    weight, gram = problem()
    score = scores.wanda(weight, gram.diagonal().sqrt())
    keep = tensors.keep_mask(score, 0.5) if groups is None else tensors.keep_mask_nm(score, *groups)
    wanda = layer_error(weight, weight * keep, gram)
    ((_, surgery),) = surgeon.prune([weight], factors.inverse_factor(gram, 0.01)[0], [0.5], groups)
    ((_, admm),) = alternating.prune([weight], gram, [0.5], groups, 0.1, 15, 20)
    assert layer_error(weight, surgery, gram) < 0.9 * wanda
    assert layer_error(weight, admm, gram) < 0.9 * wanda


def test_the_factor_is_the_cholesky_factor_of_the_inverse():
    _, gram = problem()
    factor, _ = factors.inverse_factor(gram, 0.01)
    damped = gram + 0.01 * gram.diagonal().mean() * torch.eye(len(gram))
    expected = torch.linalg.cholesky(torch.linalg.inv(damped), upper=True)
    torch.testing.assert_close(factor, expected, rtol=1e-3, atol=1e-5)


def test_damping_grows_until_there_is_a_factor_and_is_told():
    x = torch.randn(3, 20, generator=torch.Generator().manual_seed(0))
    gram = x.T @ x - 0.05 * torch.eye(20)  # as far below 0 as rounding can push a singular matrix, and farther
    factor, damping = factors.inverse_factor(gram, 1e-4)
    assert damping == pytest.approx(0.1)
    assert torch.isfinite(factor).all()
    with pytest.raises(ValueError, match="damping: the Gram matrix"):
        factors.inverse_factor(-gram.abs(), 0.01)


def plain_admm(weight, gram, sparsity, damping=0.1, steps=15, iterations=20):
    """The published update with its schedule, in float64 on the transpose."""
    norm = gram.diagonal().double().sqrt()
    moments = gram.double() / norm / norm[:, None]
    moments += damping * moments.diagonal().mean() * torch.eye(len(gram), dtype=torch.double)
    w = (weight.double() * norm).T
    products, inverse = moments @ w, torch.linalg.inv(moments + torch.eye(len(gram), dtype=torch.double))
    u = torch.zeros_like(w)
    for t in range(iterations):
        if t < steps:
            share = sparsity - sparsity * (1 - (t + 1) / steps) ** 3
            lowest = (w + u).abs().flatten().argsort()[: math.floor(share * w.numel() + 0.5)]
            mask = torch.ones(w.numel(), dtype=torch.double).index_fill(0, lowest, 0).view_as(w)
        z = (w + u) * mask
        u = u + w - z
        w = inverse @ (products + z - u)
    return mask.T.bool(), (((w + u) * mask).T / norm).float()


def test_admm_equals_the_published_iteration():
    weight, gram = problem()
    ((keep, new),) = alternating.prune([weight], gram, [0.6], None, 0.1, 15, 20)
    mask, expected = plain_admm(weight, gram, 0.6)
    assert (keep == mask).float().mean() > 0.998
    assert layer_error(weight, new, gram) == pytest.approx(layer_error(weight, expected, gram), rel=0.01)


@pytest.mark.parametrize(("n", "m"), [(2, 4), (4, 8), (1, 4), (5, 8)])
def test_admm_honours_n_and_m(n, m):
    weight, gram = problem()
    ((keep, new),) = alternating.prune([weight], gram, [1 - n / m], (n, m), 0.1, 15, 20)
    assert (keep.reshape(-1, m).sum(1) == n).all()
    assert torch.equal(new != 0, keep)
    two_of_four = keep.reshape(-1, 4).sum(1) == 2
    assert bool(two_of_four.all()) == ((n, m) == (2, 4))  # the published code prunes 4:8 as 2:4


def test_ria_masks_are_those_of_the_published_formula():
    weight, gram = problem()
    norm = gram.diagonal().sqrt()
    size = weight.abs()
    published = (size / size.sum(0) + size / size.sum(1).reshape(-1, 1)) * torch.sqrt(norm.square()) ** 0.5
    k = math.floor(0.5 * size.numel() + 0.5)
    expected = published > published.flatten().sort().values[k - 1]
    assert torch.equal(tensors.keep_mask(scores.ria(weight, norm, 0.5), 0.5, "matrix"), expected)


def run(method, architecture="llama", data=None, change=None, **settings):
    """(changed model, what was achieved, the model before)."""
    plugin = plugins.get("modifications", method)
    model, before = tiny.build(architecture), tiny.build(architecture)
    for each in (model, before):
        if change:
            change(each)
    achieved = plugin.module.apply(model, plugin.settings(settings), data or TinyData(architecture))
    return model, achieved, before


def test_ria_in_a_model_keeps_the_best_of_each_matrix():
    model, _, before = run("ria", sparsity=0.4, exponent=0)
    for new, old in zip(targets.find(model), targets.find(before), strict=True):
        size = old.weight.abs()
        relative = size / size.sum(0) + size / size.sum(1, keepdim=True)
        assert torch.equal(new.weight != 0, tensors.keep_mask(relative, 0.4, "matrix"))


def test_sparsegpt_in_a_model_changes_kept_weights_and_helps_the_outputs(architecture):
    tokens = TinyData(architecture).tokens("default")
    dense, ours, wanda = (
        model(tokens, use_cache=False).logits.detach()
        for model in (
            tiny.build(architecture),
            run("sparsegpt", architecture, sparsity=0.5)[0],
            run("wanda", architecture, sparsity=0.5)[0],
        )
    )
    assert (ours - dense).square().mean() < (wanda - dense).square().mean()


def hard(model):
    """A row of zeros, a constant row, a dead channel and a matrix of zeros."""
    first, second, *_, last = targets.find(model)
    first.weight[0] = 0
    first.weight[1] = 0.5
    first.weight[:, 2] = 0
    second.weight.zero_()
    last.weight[:, 3] = 0


@pytest.mark.parametrize("method", METHODS)
def test_hard_weights_and_one_short_sequence_give_a_finite_result_of_the_asked_sparsity(method):
    data = TinyData()
    data.tokens = lambda name: tiny.tokens(1, 5)
    model, achieved, _ = run(method, data=data, change=hard, sparsity=0.5)
    assert achieved["sparsity"] == pytest.approx(0.5, abs=1e-3)
    assert math.isfinite(achieved["relative_error"])
    for target in targets.find(model):
        assert torch.isfinite(target.weight).all()
        assert (target.weight == 0).float().mean() >= 0.49


@pytest.mark.parametrize("method", ["sparsegpt", "admm", "ria", "dsnot"])
def test_dead_channels_and_no_input_at_all_are_survived(method):
    def silence(model):
        model.model.norm.weight.data.zero_()
        for layer in model.model.layers:
            layer.input_layernorm.weight.data[:5] = 0
            layer.post_attention_layernorm.weight.data.zero_()

    model, achieved, _ = run(method, change=silence, sparsity=0.5)
    assert achieved["sparsity"] == pytest.approx(0.5, abs=1e-3)
    first = targets.find(model)[0].weight
    if method == "admm":
        assert (first[:, :5] == 0).all()
    assert torch.isfinite(first).all()


@pytest.mark.parametrize("method", METHODS)
def test_experts_without_tokens_are_pruned_and_counted(method):
    data = TinyData("mixtral")
    data.tokens = lambda name: tiny.tokens(1, 2)
    _, achieved, _ = run(method, "mixtral", data, sparsity=0.5)
    assert achieved["sparsity"] == pytest.approx(0.5)
    assert achieved.get("targets_without_tokens", 1) > 0


@pytest.mark.parametrize(
    ("method", "settings", "message"),
    [
        ("sparsegpt", {"damping": 0}, "damping: 0 is outside"),
        ("admm", {"iterations": 3}, "iterations: 3 is less"),
        ("ria", {"compare": "column"}, "unknown compare 'column'"),
        ("dsnot", {"initial": "wand"}, "Did you mean 'wanda'"),
        ("wanda", {"allocation": "owls"}, "Did you mean 'owl'"),
    ],
)
def test_wrong_settings_are_refused(method, settings, message):
    with pytest.raises(ValueError, match=message):
        plugins.get("modifications", method).settings({"sparsity": 0.5, **settings})


@pytest.mark.parametrize("method", ["sparsegpt", "admm", "dsnot"])
def test_chunks_give_the_same_masks(method):
    whole, _, _ = run(method, sparsity=0.5)
    chunked, _, _ = run(method, data=TinyData(chunk=3), sparsity=0.5)
    for one, other in zip(targets.find(whole), targets.find(chunked), strict=True):
        assert ((one.weight == 0) == (other.weight == 0)).float().mean() > 0.99
