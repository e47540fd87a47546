"""The reference: what it keeps, its floors, and that it refuses a reference that is broken itself."""

import math

import numpy as np
import pytest
import torch

import tiny
from hemorrhage.architecture.head import Head
from hemorrhage.corpus.tokens import TokenSet
from hemorrhage.measuring import comparison, reference


def token_set(windows=5, length=12):
    tokens = tiny.tokens(windows, length).numpy().astype(np.int32)
    scored = np.ones(tokens.shape, dtype=bool)
    scored[:, 0] = False
    return TokenSet(tokens, scored, scored.sum(1), ["a"] * windows, {})


def plain_nll(model, tokens):
    """[B, L-1] from the model's own logits."""
    ids = torch.as_tensor(tokens.tokens, dtype=torch.long)
    with torch.no_grad():
        logits = model(ids).logits[:, :-1].double()
    return -torch.log_softmax(logits, 2).gather(2, ids[:, 1:, None])[:, :, 0]


def test_losses_are_those_of_the_models_own_logits(tmp_path, architecture):
    model, tokens = tiny.build(architecture), token_set()
    reference.measure(model, tokens, tmp_path, 2)
    opened = reference.Reference.open(tmp_path)
    assert opened.hidden.shape == (5, 12, 32)
    assert np.isnan(opened.nll[:, 0]).all()
    np.testing.assert_allclose(opened.nll[:, 1:], plain_nll(model, tokens), rtol=1e-4, atol=1e-5)
    assert opened.tokens_hash == tokens.hash
    assert opened.floors["floor_batch"] < 1e-6
    assert 1e-9 < opened.floors["floor_bf16"] < 0.1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_windows_come_back_from_disk_in_the_models_dtype(tmp_path, dtype):
    model, tokens = tiny.build().to(dtype), token_set()
    reference.measure(model, tokens, tmp_path, 2)
    opened = reference.Reference.open(tmp_path)
    ids = torch.as_tensor(tokens.tokens[2:4], dtype=torch.long)
    with torch.no_grad():
        expected = model.base_model(ids, use_cache=False).last_hidden_state
    assert opened.hidden[2:4].dtype == dtype
    assert torch.equal(opened.hidden[2:4], expected)
    assert torch.equal(opened.hidden[2], expected[0])


def test_weights_are_left_as_they_were_and_a_second_run_gives_equal_bytes(tmp_path):
    model, tokens = tiny.build(), token_set()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for folder in ("a", "b"):
        reference.measure(model, tokens, tmp_path / folder, 2)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    for name in ("hidden.npy", "nll.npz", "reference.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_the_rounding_floor_is_zero_for_weights_that_are_bfloat16_already(tmp_path):
    model, tokens = tiny.build(), token_set()
    for parameter in model.parameters():
        parameter.data = parameter.data.bfloat16().float()
    reference.measure(model, tokens, tmp_path, 2)
    assert reference.Reference.open(tmp_path).floors["floor_bf16"] == 0


def test_a_reference_that_is_not_finite_is_refused_with_the_number_of_positions(tmp_path):
    model, tokens = tiny.build(), token_set()
    model.get_input_embeddings().weight.data[int(tokens.tokens[1, 3])] = math.nan
    with pytest.raises(ValueError, match=r"no finite prediction at \d+ of 55 scored positions"):
        reference.measure(model, tokens, tmp_path, 2)
    assert not (tmp_path / "reference.json").exists()


def test_only_scored_positions_are_compared():
    model, tokens = tiny.build(), token_set()
    tokens.scored[:, :6] = False
    tokens.scored[3] = False
    hidden = model.base_model(torch.as_tensor(tokens.tokens, dtype=torch.long)).last_hidden_state.detach()
    found = comparison.compare(Head.of(model), hidden, model, tokens, 1)
    for name, values in found.items():
        assert (np.isnan(values) == ~tokens.scored).all(), name
    expected = plain_nll(model, tokens).numpy()[tokens.scored[:, 1:]]
    np.testing.assert_allclose(found["nll"][tokens.scored], expected, rtol=1e-4)
