"""Low-rank methods: each equals the formula written out, and the record counts the factors."""

import pytest
import torch

import tiny
from hemorrhage import plugins
from hemorrhage.activations import calibration
from hemorrhage.architecture import targets
from hemorrhage.methods import low_rank
from tiny_data import TinyData


def by_formula(weight, rank, scale):
    """U_k·Σ_k·V_kᵀ·S⁻¹ of the plain singular value decomposition of W·S, in float64."""
    u, s, v = torch.linalg.svd(weight.double() @ scale, full_matrices=False)
    return (u[:, :rank] * s[:rank]) @ v[:rank] @ torch.linalg.inv(scale)


def applied(method, architecture="llama", data=None, **settings):
    plugin = plugins.get("modifications", method)
    model = tiny.build(architecture)
    return model, plugin.module.apply(model, plugin.settings(settings), data or TinyData(architecture))


def first_group(statistic):
    """The first group of targets and a statistic of its input; nothing before it can have changed."""
    seen = []
    model = tiny.build("llama")

    def visit(group):
        if not seen:
            seen.append((group.targets, getattr(group, statistic)()))

    calibration.walk(model, TinyData().tokens("default"), visit, statistics=(statistic,))
    return seen[0]


@pytest.mark.parametrize("shape", [(24, 40), (40, 24), (30, 30)])
def test_truncation_is_the_formula_for_every_shape_and_scale(shape):
    torch.manual_seed(0)
    weight, inputs = torch.randn(shape), torch.randn(200, shape[1])
    factor, _ = low_rank.whitening(inputs.T @ inputs / 200, 0)
    diagonal = inputs.abs().mean(0)
    for scale, matrix in ((None, torch.eye(shape[1]).double()), (diagonal, diagonal.double().diag()), (factor, factor)):
        expected = by_formula(weight, 7, matrix)
        assert torch.allclose(low_rank.truncate(weight, 7, scale).double(), expected, atol=1e-5)
        assert torch.linalg.matrix_rank(low_rank.truncate(weight, 7, scale), rtol=1e-4) == 7


def test_svd_is_the_formula():
    model, achieved = applied("svd", ratio=0.4)
    for target, original in zip(targets.find(model), targets.find(tiny.build("llama")), strict=True):
        rank = achieved["ranks"][f"{target.out_features}x{target.in_features}"]
        expected = by_formula(original.weight, rank, torch.eye(target.in_features).double())
        assert torch.allclose(target.weight.double(), expected, atol=1e-5)


@pytest.mark.parametrize("method", ["asvd", "svd_llm"])
def test_calibrated_methods_are_the_formula_on_the_first_group(method):
    if method == "asvd":
        group, mean = first_group("absolute_mean")
        scale = (mean.double().sqrt() + 1e-6).diag()
    else:
        group, gram = first_group("gram")
        gram = gram.double()
        scale = torch.linalg.cholesky(gram + 1e-6 * gram.diagonal().mean() * torch.eye(len(gram)).double())
    model, achieved = applied(method, ratio=0.4)
    new = {target.name: target for target in targets.find(model)}
    for target in group:
        rank = achieved["ranks"][f"{target.out_features}x{target.in_features}"]
        found = new[target.name].weight.double()
        assert torch.allclose(found, by_formula(target.weight, rank, scale), atol=1e-5)


def test_whitening_has_the_smaller_output_error():
    group, gram = first_group("gram")
    for target in group:
        rank = low_rank.rank_for(0.4, *target.weight.shape)
        factor, _ = low_rank.whitening(gram, 1e-6)
        errors = []
        for scale in (None, factor):
            change = (target.weight - low_rank.truncate(target.weight, rank, scale)).double()
            errors.append(float(((change @ gram.double()) * change).sum()))
        assert errors[1] < errors[0]


@pytest.mark.parametrize("ratio", [0.1, 0.5, 0.9])
def test_the_factors_hold_the_share_that_is_recorded(ratio):
    _, achieved = applied("svd", ratio=ratio)
    model = tiny.build("llama")
    held = sum(
        achieved["ranks"][f"{t.out_features}x{t.in_features}"] * (t.out_features + t.in_features)
        for t in targets.find(model)
    )
    assert achieved["parameters_as_factors"] == held
    assert achieved["ratio"] == pytest.approx(1 - held / achieved["weights"])
    assert ratio <= achieved["ratio"] <= ratio + 0.1


def test_a_matrix_of_rank_one_and_fewer_tokens_than_channels_are_served():
    inputs = torch.randn(1, 32)
    gram = inputs.T @ inputs
    factor, damping = low_rank.whitening(gram, 0.0)
    assert damping > 0
    assert torch.isfinite(factor).all()
    weight = torch.randn(16, 1) @ torch.randn(1, 32)
    assert torch.allclose(low_rank.truncate(weight, 3, factor), weight, atol=1e-4)
    assert torch.equal(low_rank.whitening(torch.zeros(4, 4), 1e-6)[0], torch.eye(4).double())


def reached(model, tokens):
    """Target -> whether a calibration token reaches it."""
    seen = {}
    calibration.walk(model, tokens, lambda group: seen.update({t.name: bool(group.rows) for t in group.targets}))
    return seen


def test_experts_without_tokens_are_truncated_by_their_weights():
    data = TinyData("mixtral")
    data.tokens = lambda name: tiny.tokens(1, 2)  # 2 tokens choose at most 4 of the 4 experts, seldom all
    model, achieved = applied("svd_llm", "mixtral", data, ratio=0.3)
    by_weights, _ = applied("svd", "mixtral", ratio=0.3)
    seen = reached(model, data.tokens("default"))
    assert achieved["targets_without_tokens"] == list(seen.values()).count(False) > 0
    for found, plain in zip(targets.find(model), targets.find(by_weights), strict=True):
        assert torch.equal(found.weight, plain.weight) != seen[found.name]
