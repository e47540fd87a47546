"""Residual streams side by side, and single blocks swapped into the reference: against direct computation."""

import copy
import math

import numpy as np
import pytest
import torch

import tiny
from hemorrhage.architecture import attachments, blocks, targets
from hemorrhage.architecture.head import Head, hidden_states
from hemorrhage.corpus.tokens import TokenSet
from hemorrhage.measuring import block_swaps, divergence, residuals

WINDOWS, LENGTH = 3, 12


def token_set(first=1):
    tokens = tiny.tokens(WINDOWS, LENGTH).numpy().astype(np.int32)
    scored = np.zeros(tokens.shape, dtype=bool)
    scored[:, first:] = True
    return TokenSet(tokens, scored, 3 * scored.sum(1), ["a"] * WINDOWS, {})


def damaged(model, share=0.2):
    generator = torch.Generator().manual_seed(1)
    broken = copy.deepcopy(model)
    for target in targets.find(broken):
        noise = torch.randn(target.weight.shape, generator=generator).to(target.weight.device)
        target.write(target.weight + share * target.weight.std() * noise)
    return broken


def streams(model, ids):
    """The output of every block, kept by copies."""
    kept = {}
    residuals.run(model, ids, lambda block, hidden: kept.update({block: hidden.clone()}))
    return [kept[block] for block in sorted(kept)]


def by_name(metrics):
    return {entry.metric: entry for entry in metrics}


def test_the_numbers_are_those_of_two_plain_passes(model):
    tokens, broken = token_set(), damaged(model)
    found = by_name(residuals.metrics(residuals.compare(model, broken, tokens, [0, 1, 2]), None))
    ids = torch.as_tensor(tokens.tokens, dtype=torch.long, device=model.device)
    for block, (h, e) in enumerate(zip(streams(broken, ids), streams(model, ids), strict=True)):
        h, e = h[:, 1:].double(), e[:, 1:].double()
        error = float((h - e).norm() / e.norm())
        assert found[f"relative_error.{block:02d}"].value == pytest.approx(error, rel=1e-4)
        assert found[f"snr_db.{block:02d}"].value == pytest.approx(-20 * math.log10(error), abs=1e-3)
        cosine = float(torch.cosine_similarity(h, e, dim=-1).mean())
        assert found[f"cosine.{block:02d}"].value == pytest.approx(cosine, abs=1e-5)
        assert found[f"cosine.{block:02d}"].n == WINDOWS * (LENGTH - 1)


def test_a_block_that_writes_into_its_input_is_seen_as_it_was(monkeypatch):
    """A later block may overwrite the tensor that an earlier one returned."""
    tokens, model = token_set(), tiny.build("llama")
    broken = damaged(model)
    wanted = residuals.compare(model, broken, tokens, [0, 1, 2])
    for changed in (model, broken):
        for layer in changed.model.layers:
            own = layer.forward

            def in_place(hidden_states, *args, own=own, **kwargs):
                return hidden_states.copy_(own(hidden_states, *args, **kwargs))

            layer.forward = in_place
    found = residuals.compare(model, broken, tokens, [0, 1, 2])
    np.testing.assert_array_equal(found.error, wanted.error)
    np.testing.assert_array_equal(found.energy, wanted.energy)


def test_of_several_copies_the_last_counts_and_dropped_blocks_have_no_row():
    model, tokens = tiny.build("llama", blocks=4), token_set()
    longer = copy.deepcopy(model)
    blocks.rearrange(longer, [0, 1, 1, 2, 3])
    found = residuals.compare(model, longer, tokens, residuals.sources(longer, [0, 1, 1, 2, 3], 4))
    assert found.blocks == [0, 1, 2, 3]
    assert not found.error[0].any() and (found.error[1] > 0).all()
    shorter = copy.deepcopy(model)
    blocks.rearrange(shorter, [0, 3])
    found = residuals.compare(model, shorter, tokens, residuals.sources(shorter, [0, 3], 4))
    assert found.blocks == [0, 3]
    assert not found.error[0].any() and (found.error[1] > 0).all()


def test_a_layer_map_that_does_not_fit_is_refused_and_foreign_blocks_are_left_out():
    model = tiny.build("llama")
    with pytest.raises(ValueError, match="2 entries and the variant 3 blocks"):
        residuals.sources(model, [0, 1], 3)
    assert residuals.sources(model, [0, None, 7], 3) == [0, None, None]
    assert residuals.sources(model, None, 3) == [0, 1, 2]


def test_broken_values_give_an_infinite_error_and_no_cosine():
    model, tokens = tiny.build("llama"), token_set()
    broken = copy.deepcopy(model)
    broken.model.layers[1].mlp.down_proj.weight.data[0, 0] = math.inf
    found = by_name(residuals.metrics(residuals.compare(model, broken, tokens, [0, 1, 2]), None))
    assert (found["relative_error.00"].value, found["snr_db.00"].value, found["cosine.00"].value) == (0, math.inf, 1)
    assert (found["relative_error.01"].value, found["snr_db.01"].value) == (math.inf, -math.inf)
    assert math.isnan(found["cosine.01"].value)


def direct(model, swapped, tokens, windows, length):
    """KL and relative error at the end of a whole model in which one block is another, by plain passes."""
    ids = torch.as_tensor(tokens.tokens[:windows, :length], dtype=torch.long, device=model.device)
    scored = torch.as_tensor(tokens.scored[:windows, :length], device=model.device)
    pairs = [hidden_states(one, ids)[:, :-1][scored[:, 1:]] for one in (model, swapped)]
    kl = divergence.compare_hidden(Head.of(model), pairs[0], Head.of(swapped), pairs[1], ids[:, 1:][scored[:, 1:]])
    h, e = (streams(one, ids)[-1][scored] for one in (swapped, model))
    return float(kl["kl"].double().mean()), float((h - e).norm() / e.norm())


def test_a_swap_is_the_reference_with_one_block_replaced(model):
    tokens, broken = token_set(), damaged(model)
    found = block_swaps.swap(model, broken, tokens, [0, 1, 2], windows=2, length=8)
    metrics = by_name(block_swaps.metrics(found, None))
    assert found.blocks == [0, 1, 2] and found.complete
    assert metrics["swap_control"].value == 0
    for block in range(3):
        mixed = copy.deepcopy(model)
        targets.blocks(mixed)[1][block] = copy.deepcopy(targets.blocks(broken)[1][block])
        kl, end = direct(model, mixed, tokens, 2, 8)
        assert metrics[f"swap_kl.{block:02d}"].value == pytest.approx(kl, rel=1e-3)
        assert metrics[f"swap_end_error.{block:02d}"].value == pytest.approx(end, rel=1e-3)
    assert metrics["swap_injected.02"].value == metrics["swap_end_error.02"].value
    whole = direct(model, broken, tokens, 2, 8)[0]
    assert metrics["swap_whole_kl"].value == pytest.approx(whole, rel=1e-3)
    total = sum(metrics[f"swap_kl.{block:02d}"].value for block in range(3))
    assert metrics["swap_additivity"].value == pytest.approx(total / whole, rel=1e-3)


def test_swapping_leaves_both_models_as_they_were(model):
    tokens, broken = token_set(), damaged(model)
    ids = tiny.tokens(1, 6, device=model.device)
    before = [one(ids).logits for one in (model, broken)]
    block_swaps.swap(model, broken, tokens, [0, 1, 2], windows=1, length=8)
    for one, logits in zip((model, broken), before, strict=True):
        torch.testing.assert_close(one(ids).logits, logits, rtol=0, atol=0)
        assert not any("forward" in vars(layer) for layer in targets.blocks(one)[1])
        assert not any(layer._forward_hooks or layer._forward_pre_hooks for layer in targets.blocks(one)[1])


def test_a_swapped_block_brings_its_activation_quantizers():
    tokens, model = token_set(), tiny.build("llama")
    quantized = copy.deepcopy(model)
    for target in targets.find(quantized):
        if target.block == 1:
            attachments.attach(
                quantized,
                {"kind": "activation_quantizer", "target": target.name, "bits": 3, "grid": "per_token", "scale": None},
            )
    found = block_swaps.swap(model, quantized, tokens, [0, 1, 2], WINDOWS, LENGTH)
    assert not found.kl[0].any() and not found.kl[2].any()
    assert (found.kl[1] > 0).all()
    np.testing.assert_array_equal(found.kl[1], found.whole)


def test_only_blocks_with_one_copy_are_swapped_and_the_sum_is_then_unknown():
    model, tokens = tiny.build("llama", blocks=4), token_set()
    longer = copy.deepcopy(model)
    blocks.rearrange(longer, [0, 1, 1, 2, 3])
    found = block_swaps.swap(model, longer, tokens, [0, 1, 1, 2, 3], WINDOWS, LENGTH)
    metrics = by_name(block_swaps.metrics(found, None))
    assert found.blocks == [0, 2, 3] and not found.complete
    assert not found.kl.any() and found.whole.all()
    assert metrics["swap_blocks"].value == 3
    assert math.isnan(metrics["swap_additivity"].value) and metrics["swap_additivity"].n == 0


def test_swaps_stay_within_their_budget_and_take_whole_windows_where_the_beginning_is_not_scored():
    assert block_swaps.budget(token_set(), 10, 5) == (2, 5)
    assert block_swaps.budget(token_set(), 10**6, 5) == (WINDOWS, 5)
    assert block_swaps.budget(token_set(), 1, 100) == (1, LENGTH)
    assert block_swaps.budget(token_set(first=6), 20, 5) == (1, LENGTH)
