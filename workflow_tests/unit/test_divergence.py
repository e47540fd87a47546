"""Divergences: hand-computed cases, float64 truth, bounds, broken rows, memory."""

import math

import numpy as np
import pytest
import torch

from hemorrhage.measuring import divergence

KL_NAMES = ("kl", "kl_reverse", "jensen_shannon", "total_variation")


def truth(a, b):
    """Every divergence from its definition, in float64."""
    lp, lq = torch.log_softmax(a.double(), 1), torch.log_softmax(b.double(), 1)
    p, q = lp.exp(), lq.exp()
    lm = torch.logaddexp(lp, lq) - math.log(2)
    kl = (p * ((lp - lq) + torch.expm1(lq - lp))).sum(1)
    reverse = (q * ((lq - lp) + torch.expm1(lp - lq))).sum(1)
    shannon = ((p * (lp - lm)).sum(1) + (q * (lq - lm)).sum(1)) / 2
    return dict(zip(KL_NAMES, (kl, reverse, shannon, (p - q).abs().sum(1) / 2), strict=True))


def logits(rows, size, noise, seed=0, scale=3.0):
    generator = torch.Generator().manual_seed(seed)
    a = scale * torch.randn(rows, size, generator=generator)
    a[:, 0] += torch.linspace(0, 25, rows)  # from undecided to certain
    return a, a + noise * torch.randn(rows, size, generator=generator), torch.zeros(rows, dtype=torch.long)


def test_two_tokens_by_hand():
    p, q = torch.tensor([[0.5, 0.5]]), torch.tensor([[0.75, 0.25]])
    found = divergence.compare(p.log(), q.log(), torch.tensor([1]))
    assert found["kl"].item() == pytest.approx(0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25), rel=1e-6)
    assert found["kl_reverse"].item() == pytest.approx(0.75 * math.log(1.5) + 0.25 * math.log(0.5), rel=1e-6)
    assert found["total_variation"].item() == pytest.approx(0.25, rel=1e-6)
    half = 0.25 * math.log(0.5 / 0.625) + 0.25 * math.log(0.5 / 0.375)
    shannon = half + 0.375 * math.log(0.75 / 0.625) + 0.125 * math.log(0.25 / 0.375)
    assert found["jensen_shannon"].item() == pytest.approx(shannon, rel=1e-6)
    assert found["nll"].item() == pytest.approx(math.log(4), rel=1e-6)
    assert found["reference_nll"].item() == pytest.approx(math.log(2), rel=1e-6)
    assert found["delta_p"].item() == pytest.approx(-0.25, rel=1e-6)
    assert found["confidence"].item() == pytest.approx(0.5, rel=1e-6)


def test_agreement_and_overlap_by_hand():
    p = torch.tensor([[9.0, 8, 7, 6, 5, 0, 0], [9.0, 8, 7, 6, 5, 0, 0]])
    q = torch.tensor([[9.0, 8, 7, 6, 0, 5, 0], [0.0, 0, 7, 6, 5, 9, 8]])
    found = divergence.compare(p, q, torch.tensor([0, 0]))
    assert found["top1_agreement"].tolist() == [1.0, 0.0]
    assert found["top5_overlap"].tolist() == pytest.approx([0.8, 0.6])


@pytest.mark.parametrize("size", [3, 128, 640, 5000])
def test_the_most_probable_tokens_are_found_block_by_block(size):
    a, _, _ = logits(50, size, 0)
    expected = a.topk(min(5, size), dim=1)
    values, tokens = divergence._most_probable(a)
    assert torch.equal(values, expected.values)
    assert torch.equal(tokens, expected.indices)


def test_equal_logits_are_exactly_alike(device):
    a, _, targets = (part.to(device) for part in logits(9, 50_000, 0))
    found = divergence.compare(a, a.clone(), targets)
    for name in (*KL_NAMES, "delta_p", "nonfinite"):
        assert (found[name] == 0).all(), name
    assert (found["nll"] == found["reference_nll"]).all()
    assert (found["top1_agreement"] == 1).all()
    assert (found["top5_overlap"] == 1).all()


@pytest.mark.parametrize("noise", [1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0])
def test_agrees_with_float64_over_a_large_vocabulary(noise, device):
    a, b, targets = (part.to(device) for part in logits(64, 49_152, noise))
    found, expected = divergence.compare(a, b, targets), truth(a, b)
    assert (found["kl"] >= 0).all()
    assert (found["kl_reverse"] >= 0).all()
    rows = expected["kl"] > 1e-7
    for name in ("kl", "kl_reverse"):
        torch.testing.assert_close(found[name][rows].double(), expected[name][rows], rtol=5e-5, atol=0)
    torch.testing.assert_close(found["jensen_shannon"].double(), expected["jensen_shannon"], rtol=1e-4, atol=1e-9)
    # A share of probability: float32 probabilities are known to 1e-7 of the whole.
    torch.testing.assert_close(found["total_variation"].double(), expected["total_variation"], rtol=1e-4, atol=5e-7)


def test_percentiles_of_a_lightly_perturbed_model_match_float64():
    generator = torch.Generator().manual_seed(1)
    hidden = torch.randn(256, 64, generator=generator)
    weight = 0.4 * torch.randn(49_152, 64, generator=generator)
    step = weight.abs().amax(1, keepdim=True) / 127  # an 8-bit grid per row
    a, b = hidden @ weight.T, hidden @ (torch.round(weight / step) * step).T
    found = divergence.compare(a, b, torch.zeros(256, dtype=torch.long))["kl"].double()
    expected = truth(a, b)["kl"]
    for share in (0.0, 0.01, 0.05, 0.1, 0.5, 0.9, 0.95, 0.99, 0.999, 1.0):
        exact = np.quantile(expected.numpy(), share)
        assert np.quantile(found.numpy(), share) == pytest.approx(exact, rel=1e-4 if exact > 1e-7 else 1e-2)


def test_bounds_hold_for_any_pair():
    for seed in range(20):
        a, b, targets = logits(32, 97, 10.0 ** (seed % 5 - 3), seed)
        found = divergence.compare(a, b, targets)
        assert (found["kl"] >= 0).all()
        assert (found["total_variation"] <= (found["kl"] / 2).sqrt() + 1e-6).all()  # Pinsker
        assert (found["total_variation"] <= 1 + 1e-6).all()
        assert (found["jensen_shannon"] <= math.log(2) + 1e-6).all()
        back = divergence.compare(b, a, targets)
        torch.testing.assert_close(found["kl"], back["kl_reverse"], rtol=1e-5, atol=1e-9)
        torch.testing.assert_close(found["jensen_shannon"], back["jensen_shannon"], rtol=1e-5, atol=1e-9)
        torch.testing.assert_close(found["total_variation"], back["total_variation"], rtol=1e-5, atol=5e-7)


def test_logits_hundreds_apart_do_not_overflow():
    a, b = torch.zeros(1, 5), torch.zeros(1, 5)
    a[0, 0], b[0, 1] = 300.0, 300.0
    found = divergence.compare(a, b, torch.tensor([0]))
    assert found["kl"].item() == pytest.approx(300, rel=1e-5)
    assert found["kl_reverse"].item() == pytest.approx(300, rel=1e-5)
    assert found["total_variation"].item() == pytest.approx(1)
    assert found["jensen_shannon"].item() == pytest.approx(math.log(2), rel=1e-6)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("side", [0, 1])
def test_a_logit_that_is_not_finite_spoils_its_row_only(value, side):
    pair = list(logits(4, 300, 0.1)[:2])
    pair[side][2, 7] = value
    found = divergence.compare(*pair, torch.tensor([7, 7, 7, 7]))
    assert found["nonfinite"].tolist() == [0, 0, 1, 0]
    assert found["kl"][2] == math.inf
    assert found["nll"][2] == math.inf
    assert found["total_variation"][2] == 1
    assert found["top1_agreement"][2] == 0
    assert torch.isfinite(found["kl"][[0, 1, 3]]).all()
    for name in ("delta_p", "confidence", "top5_overlap", "jensen_shannon"):
        assert torch.isfinite(found[name]).all(), name


def test_heads_are_applied_a_few_positions_at_a_time(monkeypatch):
    monkeypatch.setattr(divergence, "LOGITS_AT_ONCE", 128 * 10)
    weight, hidden = torch.randn(128, 16), torch.randn(95, 16)
    seen = []

    def head(rows):
        seen.append(len(rows))
        return rows @ weight.T

    targets = torch.arange(95)
    found = divergence.compare_hidden(head, hidden, lambda rows: rows @ weight.T * 1.1, hidden, targets)
    whole = divergence.compare(hidden @ weight.T, hidden @ weight.T * 1.1, targets)
    assert max(seen) == 10
    torch.testing.assert_close(found["kl"], whole["kl"], rtol=1e-4, atol=1e-7)
    assert len(found["kl"]) == 95


def test_different_vocabularies_are_refused_or_cut():
    hidden, wide, narrow = torch.randn(5, 8), torch.randn(40, 8), torch.randn(32, 8)
    targets = torch.arange(5)

    def of(weight):
        return lambda rows: rows @ weight.T

    with pytest.raises(ValueError, match="40 vocabulary entries and the variant 32"):
        divergence.compare_hidden(of(wide), hidden, of(narrow), hidden, targets)
    with pytest.raises(ValueError, match="tokenizer's 36"):
        divergence.compare_hidden(of(wide), hidden, of(narrow), hidden, targets, vocabulary=36)
    cut = divergence.compare_hidden(of(wide), hidden, of(wide[:32]), hidden, targets, vocabulary=32)
    assert cut["kl"].max() < 1e-9
