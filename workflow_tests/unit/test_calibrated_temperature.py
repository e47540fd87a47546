"""The logit factor: attached where it helps on held-out windows, and only there."""

import pytest
import torch

import tiny
from hemorrhage import plugins
from hemorrhage.architecture import attachments
from hemorrhage.architecture.head import Head, hidden_states
from hemorrhage.modification_data import FitReference
from tiny_data import TinyData

METHOD = plugins.get("modifications", "calibrated_temperature")


def apply(model, data):
    """What was achieved."""
    return METHOD.module.apply(model, METHOD.settings({}), data)


def logits(model):
    with torch.no_grad():
        return model(tiny.tokens(3, 20)).logits


def with_noise(scale, sharpness=1.0, seed=0):
    """A Llama whose final norm is scaled, which scales its logits, and whose head is noisy."""
    model = tiny.build("llama")
    model.model.norm.weight.data *= sharpness
    noise = torch.randn(model.lm_head.weight.shape, generator=torch.Generator().manual_seed(seed))
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach() + scale * noise)
    return model


def test_a_model_that_is_too_sure_is_undone_exactly():
    model = with_noise(0.0, sharpness=4.0)
    achieved = apply(model, TinyData())
    assert achieved["chosen"] == "factor"
    assert achieved["fitted_factor"] == pytest.approx(0.25, rel=1e-3)
    assert achieved["validation_kl_scaled"] < 1e-6 < achieved["validation_kl"]
    torch.testing.assert_close(logits(model), logits(tiny.build("llama")), rtol=1e-3, atol=1e-3)


def test_the_attached_factor_lowers_the_kl_that_was_recorded():
    model, data = with_noise(0.2, sharpness=2.0), TinyData()
    achieved = apply(model, data)
    half = len(data.fit.tokens) // 2
    with torch.no_grad():
        p = data.reference(data.fit.tokens[half:]).logits[:, :-1].double().log_softmax(-1)
        q = model(data.fit.tokens[half:]).logits[:, :-1].double().log_softmax(-1)
    assert float((p.exp() * (p - q)).sum(-1).mean()) == pytest.approx(achieved["validation_kl_scaled"], rel=1e-4)
    assert achieved["validation_kl_scaled"] < achieved["validation_kl"]


def test_the_identity_is_chosen_where_the_factor_does_not_help_on_held_out_windows():
    model, data = tiny.build("llama"), TinyData()
    first, second = data.fit.hidden.chunk(2)
    # The first half asks for flatter distributions, the second for sharper ones: what is fitted must fail.
    skewed = FitReference(data.fit.tokens, torch.cat([0.5 * first, 2 * second]), data.fit.head)
    data.__dict__["fit"] = skewed
    achieved = apply(model, data)
    assert achieved["fitted_factor"] < 1
    assert achieved["validation_kl_scaled"] > achieved["validation_kl"]
    assert achieved["chosen"] == "identity"
    assert attachments.attached(model) == []
    assert torch.equal(logits(model), logits(tiny.build("llama")))


def test_the_reference_itself_is_left_alone():
    model = tiny.build("llama")
    assert apply(model, TinyData())["fitted_factor"] == pytest.approx(1, abs=1e-3)
    torch.testing.assert_close(logits(model), logits(tiny.build("llama")), rtol=1e-3, atol=1e-3)


def test_the_most_likely_token_stays():
    model = with_noise(0.3, sharpness=3.0)
    before = logits(model).argmax(-1)
    apply(model, TinyData())
    assert torch.equal(logits(model).argmax(-1), before)


def test_one_window_is_refused():
    data = TinyData()
    tokens = tiny.tokens(1, 24)
    data.__dict__["fit"] = FitReference(tokens, hidden_states(data.reference, tokens), Head.of(data.reference))
    with pytest.raises(ValueError, match="needs two"):
        apply(tiny.build("llama"), data)
