"""The fitted factor against known answers and a fine grid."""

import math

import pytest
import torch

from hemorrhage.methods import temperature_fit as fit

TOKENS, VOCABULARY = 600, 50


def sides(seed=0, scale=1.0, noise=0.0, device="cpu"):
    """A reference and a model whose logits are the reference's times ``scale``, plus noise."""
    generator = torch.Generator().manual_seed(seed)
    reference = (3 * torch.randn(TOKENS, VOCABULARY, generator=generator)).to(device)
    own = scale * reference + noise * torch.randn(TOKENS, VOCABULARY, generator=generator).to(device)
    return fit.Side(lambda hidden: hidden.float(), reference), fit.Side(lambda hidden: hidden.float(), own)


def plain_kl(reference, model, factor):
    log_p = reference.hidden.double().log_softmax(-1)
    log_q = (factor * model.hidden.double()).log_softmax(-1)
    return float((log_p.exp() * (log_p - log_q)).sum(-1).mean())


@pytest.mark.parametrize("scale", [0.05, 0.5, 1.0, 3.0, 30.0])
def test_fit_undoes_a_pure_scale(scale, device):
    reference, model = sides(scale=scale, device=device)
    factor = fit.fit_factor(reference, model)
    assert factor == pytest.approx(1 / scale, rel=1e-4)
    assert fit.mean_kl(reference, model, (factor,))[0] < 1e-7


def test_fit_is_the_minimum_of_a_fine_grid(device):
    reference, model = sides(noise=2.0, device=device)
    factor = fit.fit_factor(reference, model)
    grid = [factor * (1 + step / 1000) for step in range(-50, 51)]
    assert min(grid, key=lambda beta: plain_kl(reference, model, beta)) == pytest.approx(factor, rel=1e-3)
    assert factor < 1  # noise makes a model too sure of itself


def test_mean_kl_equals_a_float64_computation(device):
    reference, model = sides(noise=0.5, device=device)
    factors = (1.0, 0.7, 2.0)
    expected = [plain_kl(reference, model, factor) for factor in factors]
    assert fit.mean_kl(reference, model, factors) == pytest.approx(expected, rel=1e-5)


def test_unrelated_logits_end_at_the_bound_and_not_in_a_loop(device):
    reference, model = sides(device=device)
    opposite = fit.Side(model.head, -reference.hidden)
    assert fit.fit_factor(reference, opposite) == pytest.approx(fit.LOW, rel=0.05)


def test_constant_logits_give_a_finite_factor(device):
    reference, model = sides(device=device)
    flat = fit.Side(model.head, torch.zeros_like(model.hidden))
    assert math.isfinite(fit.fit_factor(reference, flat))


def test_non_finite_logits_give_factor_one_and_infinite_kl(device):
    reference, model = sides(device=device)
    model.hidden[3, 4] = float("nan")
    assert fit.fit_factor(reference, model) == 1.0
    assert fit.mean_kl(reference, model) == [math.inf]


def test_logits_are_made_in_chunks(device):
    reference, model = sides(device=device)
    sizes = []
    watched = fit.Side(lambda hidden: (sizes.append(len(hidden)), hidden)[1], model.hidden)
    fit.mean_kl(reference, watched)
    assert max(sizes) <= fit.CHUNK
    assert sum(sizes) == TOKENS
