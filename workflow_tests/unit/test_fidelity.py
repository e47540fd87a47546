"""The probe ``fidelity``: hand-computed metrics, broken positions, percentiles, the plain transformers loop."""

import copy
import math

import numpy as np
import pytest
import torch

import tiny
from hemorrhage.analysis.statistics import index_matrix
from hemorrhage.architecture import attachments
from hemorrhage.architecture.head import Head
from hemorrhage.corpus.tokens import TokenSet
from hemorrhage.measuring import fidelity_metrics, reference
from hemorrhage.probes import fidelity
from hemorrhage.probing import Context

NAMES = (
    "kl",
    "kl_reverse",
    "jensen_shannon",
    "total_variation",
    "reference_nll",
    "nll",
    "delta_p",
    "top1_agreement",
    "top5_overlap",
    "confidence",
    "nonfinite",
)


def token_set(windows, length):
    tokens = tiny.tokens(windows, length).numpy().astype(np.int32)
    scored = np.ones(tokens.shape, dtype=bool)
    scored[:, 0] = False
    return TokenSet(tokens, scored, np.full(windows, 10), ["a"] * windows, {})


def context(model, tokens, folder, batch=2, **more):
    reference.measure(model, tokens, folder, batch)
    return Context(tokens, reference.Reference.open(folder), Head.of(model), batch, model="tiny", **more)


def by_name(measurement):
    return {entry.metric: entry for entry in measurement.metrics}


def summarise(tokens, **values):
    """Metrics of two-window values; what is not given is 0."""
    full = {name: np.where(tokens.scored, 0.0, np.nan).astype(np.float32) for name in NAMES}
    for name, value in values.items():
        full[name][:, 1:] = value
    return by_name(fidelity_metrics.summarise(full, tokens, index_matrix("m", "evaluation", len(tokens.tokens))))


def test_metrics_by_hand():
    found = summarise(
        token_set(2, 3),
        nll=[[1, 2], [3, 6]],
        reference_nll=[[1, 1], [1, 1]],
        kl=[[0.1, 0.2], [0.3, 0.8]],
        kl_reverse=0.5,
        total_variation=[[0, 0.5], [0.5, 1]],
        delta_p=[[0.1, -0.1], [0.3, -0.7]],
        top1_agreement=[[1, 0], [1, 1]],
        top5_overlap=[[1, 0.4], [1, 1]],
        confidence=[[0.1, 0.3], [0.3, 1.0]],
    )
    expected = {
        "nll": 3,
        "delta_nll": 2,
        "perplexity": math.exp(3),
        "perplexity_ratio": math.exp(2),
        "bits_per_byte": 12 / math.log(2) / 20,
        "kl": 0.35,
        "kl_finite": 0.35,
        "kl_reverse": 0.5,
        "total_variation": 0.5,
        "expected_acceptance": 0.5,
        "top1_agreement": 0.75,
        "top5_overlap": 0.85,
        "delta_p_mean": -0.1,
        "delta_p_rms": math.sqrt(0.15),
        "delta_p_min": -0.7,
        "delta_p_max": 0.3,
        "kl_p50": 0.25,
        "kl_max": 0.8,
        "nonfinite_share": 0,
        "kl_confidence_0_25": 0.1,
        "kl_confidence_25_50": 0.25,
        "kl_confidence_95_100": 0.8,
    }
    for name, value in expected.items():
        assert found[name].value == pytest.approx(value, rel=1e-6), name
    assert found["kl"].n == 4
    assert found["kl"].blocks == 2
    assert found["bits_per_byte"].n == 20
    assert found["kl_confidence_50_75"].n == 0
    assert math.isnan(found["kl_confidence_50_75"].value)


def test_the_interval_of_perplexity_is_that_of_the_loss():
    found = summarise(token_set(8, 5), nll=np.random.default_rng(0).gamma(2, 1, (8, 4)))
    for end in ("value", "low", "high"):
        assert getattr(found["perplexity"], end) == pytest.approx(math.exp(getattr(found["nll"], end)))


def test_a_broken_position_makes_the_mean_infinite_and_is_counted():
    found = summarise(
        token_set(2, 3), kl=[[0.1, math.inf], [0.3, 0.5]], nll=[[1, math.inf], [1, 1]], nonfinite=[[0, 1], [0, 0]]
    )
    for name in ("kl", "nll", "perplexity", "delta_nll", "kl_max", "kl_p99"):
        assert found[name].value == math.inf, name
    assert found["kl_finite"].value == pytest.approx(0.3)
    assert found["kl_finite"].n == 3
    assert found["nonfinite_share"].value == 0.25
    assert found["kl_p50"].value == pytest.approx(0.4)


def test_percentiles_interpolate_linearly_over_all_scored_tokens():
    kl = np.random.default_rng(1).gamma(0.3, 1, (6, 40))
    found = summarise(token_set(6, 41), kl=kl)
    for key, share in fidelity_metrics.PERCENTILES.items():
        assert found[f"kl_{key}"].value == pytest.approx(np.quantile(kl.astype(np.float32), share), rel=1e-6)
    assert found["kl_p50"].low < found["kl_p50"].value < found["kl_p50"].high
    assert math.isnan(found["kl_max"].low)


def test_equals_a_plain_loop_over_the_models_own_logits(tmp_path):
    model, tokens = tiny.build("gemma2"), token_set(6, 24)
    variant = tiny.build("gemma2")
    for parameter in variant.parameters():
        parameter.data += 0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    found = by_name(fidelity.measure(variant, context(model, tokens, tmp_path), fidelity.Settings()))
    ids = torch.as_tensor(tokens.tokens, dtype=torch.long)
    with torch.no_grad():
        lp, lq = (torch.log_softmax(m(ids).logits[:, :-1].double(), -1) for m in (model, variant))
    losses = [-side.gather(2, ids[:, 1:, None]).mean().item() for side in (lp, lq)]
    assert found["kl"].value == pytest.approx((lp.exp() * (lp - lq)).sum(-1).mean().item(), rel=1e-5)
    assert found["kl_reverse"].value == pytest.approx((lq.exp() * (lq - lp)).sum(-1).mean().item(), rel=1e-5)
    assert found["perplexity"].value == pytest.approx(math.exp(losses[1]), rel=1e-5)
    assert found["delta_nll"].value == pytest.approx(losses[1] - losses[0], rel=1e-3, abs=1e-6)
    assert found["top1_agreement"].value == pytest.approx((lp.argmax(-1) == lq.argmax(-1)).double().mean().item())


def test_weights_that_are_not_finite_are_reported_not_hidden(tmp_path):
    model, tokens = tiny.build("qwen3"), token_set(4, 12)
    ctx = context(model, tokens, tmp_path)
    broken = copy.deepcopy(model)
    broken.get_input_embeddings().weight.data[int(tokens.tokens[1, 6])] = math.nan
    found = by_name(fidelity.measure(broken, ctx, fidelity.Settings()))
    assert found["kl"].value == math.inf
    assert 0 < found["kl_finite"].n < found["kl"].n
    assert found["nonfinite_share"].value == pytest.approx(1 - found["kl_finite"].n / found["kl"].n)
    assert found["kl_finite"].value == 0


def test_a_logit_correction_of_the_variant_is_measured(tmp_path):
    model, tokens = tiny.build(), token_set(4, 12)
    ctx = context(model, tokens, tmp_path)
    colder = copy.deepcopy(model)
    attachments.attach(colder, {"kind": "logit_scale", "factor": 1.5})
    found = by_name(fidelity.measure(colder, ctx, fidelity.Settings()))
    assert found["kl"].value > 1e-3
    assert found["top1_agreement"].value == 1


def test_memory_does_not_grow_with_vocabulary_times_tokens(tmp_path, monkeypatch):
    from hemorrhage.measuring import divergence

    monkeypatch.setattr(divergence, "LOGITS_AT_ONCE", 128 * 4)
    model, tokens = tiny.build(), token_set(4, 33)
    ctx = context(model, tokens, tmp_path, batch=4)
    largest, plain = [], Head.__call__
    monkeypatch.setattr(Head, "__call__", lambda head, hidden: largest.append(len(hidden)) or plain(head, hidden))
    fidelity.measure(model, ctx, fidelity.Settings())
    assert max(largest) <= 4


def test_another_vocabulary_or_other_windows_are_refused(tmp_path):
    model, tokens = tiny.build("qwen3"), token_set(3, 12)
    ctx = context(model, tokens, tmp_path)
    longer = copy.deepcopy(model)
    longer.resize_token_embeddings(136)
    with pytest.raises(ValueError, match="128 vocabulary entries and the variant 136"):
        fidelity.measure(longer, ctx, fidelity.Settings())
    padded = Context(ctx.tokens, ctx.reference, ctx.reference_head, 2, model="tiny", vocabulary=128)
    assert by_name(fidelity.measure(longer, padded, fidelity.Settings()))["kl"].value < 1e-9
    other = Context(token_set(3, 11), ctx.reference, ctx.reference_head, 2, model="tiny")
    with pytest.raises(ValueError, match="other windows"):
        fidelity.measure(model, other, fidelity.Settings())
