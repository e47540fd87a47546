"""The depth map equals real surgery; the probe on context equals the comparison that it cuts up."""

import numpy as np
import pytest
import torch

import tiny
from hemorrhage import plugins
from hemorrhage.architecture import blocks
from hemorrhage.architecture.head import Head, hidden_states
from hemorrhage.corpus.tokens import TokenSet
from hemorrhage.measuring import comparison, context_effects, depth_map, reference
from hemorrhage.probing import Context

WINDOWS, LENGTH = 5, 16


def token_set():
    tokens = tiny.tokens(WINDOWS, LENGTH).numpy().astype(np.int32)
    scored = np.ones(tokens.shape, dtype=bool)
    scored[:, 0] = False
    scored[1, :6] = False
    return TokenSet(tokens, scored, scored.sum(1), [str(place) for place in range(WINDOWS)], {})


class Whole:
    """Inputs of a head for slices of windows."""

    def __init__(self, hidden):
        self.hidden = hidden

    def __getitem__(self, windows):
        return self.hidden[windows]


def surgery(architecture, layer_map, tokens):
    """Mean KL and change of the loss of a model whose blocks were really rearranged."""
    model, changed = tiny.build(architecture), tiny.build(architecture)
    blocks.rearrange(changed, layer_map)
    ids = torch.as_tensor(tokens.tokens, dtype=torch.long)
    found = comparison.compare(Head.of(model), Whole(hidden_states(model, ids)), changed, tokens, WINDOWS)
    return float(np.nanmean(found["kl"])), float(np.nanmean(found["nll"] - found["reference_nll"]))


@pytest.mark.parametrize(
    ("kind", "start", "length", "layer_map"),
    [
        ("removal", 0, 1, [1, 2]),
        ("removal", 1, 2, [0]),
        ("repetition", 1, 1, [0, 1, 1, 2]),
        ("repetition", 0, 3, [0, 1, 2, 0, 1, 2]),
    ],
)
def test_a_cell_is_what_real_surgery_gives(architecture, kind, start, length, layer_map):
    tokens = token_set()
    found = depth_map.measure(tiny.build(architecture), tokens, WINDOWS, LENGTH, (1, 2), (1, 3))
    assert found.control == 0
    cell = next(cell for cell in found.cells if (cell.kind, cell.start, cell.length) == (kind, start, length))
    kl, change = surgery(architecture, layer_map, tokens)
    assert cell.kl.sum() / found.counts.sum() == pytest.approx(kl, rel=1e-3)
    assert cell.delta_nll.sum() / found.counts.sum() == pytest.approx(change, rel=1e-3, abs=1e-5)


def test_every_range_has_a_cell_and_lengths_beyond_the_model_have_none():
    found = depth_map.measure(tiny.build("llama"), token_set(), 2, 8, (1, 3, 9), (3,))
    assert [(cell.kind, cell.start, cell.length) for cell in found.cells] == [
        ("removal", 0, 1),
        ("removal", 1, 1),
        ("removal", 2, 1),
        ("repetition", 0, 3),
    ]
    assert found.counts.tolist() == [7, 2]


def test_wrong_settings_are_refused():
    for name, values in (("depth_map", {"removed": [0]}), ("context", {"edges": ["a"]})):
        with pytest.raises(ValueError, match=f"{name}: {next(iter(values))}"):
            plugins.get("probes", name).settings(values)
    assert plugins.get("probes", "depth_map").settings({"removed": 2}).removed == (2,)


@pytest.fixture
def context(tmp_path):
    model, tokens = tiny.build("llama"), token_set()
    reference.measure(model, tokens, tmp_path, 2)
    return Context(
        tokens,
        reference.Reference.open(tmp_path),
        Head.of(model),
        2,
        model="tiny",
        load_reference=lambda: tiny.build("llama"),
    )


def test_positions_are_the_comparison_cut_into_buckets(context):
    model = tiny.build("llama", seed=1)
    found = {entry.metric: entry for entry in context_effects.measure(model, context, [1, 8, 99], []).metrics}
    whole = comparison.compare(context.reference_head, context.reference.hidden, model, context.tokens, 2)
    assert found["kl_position.0001"].value == pytest.approx(float(np.nanmean(whole["kl"][:, 1:8])), rel=1e-5)
    assert found["kl_position.0008"].value == pytest.approx(float(np.nanmean(whole["kl"][:, 8:])), rel=1e-5)
    assert found["perplexity_position.0008"].value == pytest.approx(
        float(np.exp(np.nanmean(whole["nll"][:, 8:], dtype=np.float64))), rel=1e-5
    )
    assert found["kl_position.0008"].n == int(context.tokens.scored[:, 8:].sum())


def test_shorter_contexts_start_both_models_anew(context):
    model = tiny.build("llama", seed=1)
    found = {entry.metric: entry for entry in context_effects.measure(model, context, [], [4, 16]).metrics}
    assert set(found) == {"perplexity_length.0004", "delta_nll_length.0004", "kl_length.0004"}
    pieces = torch.as_tensor(context.tokens.tokens.reshape(-1, 4), dtype=torch.long)
    with torch.no_grad():
        p, q = (each(pieces).logits[:, :-1].double().log_softmax(-1) for each in (tiny.build("llama"), model))
    kl = (p.exp() * (p - q)).sum(-1)
    scored = torch.as_tensor(context.tokens.scored.reshape(-1, 4)[:, 1:])
    assert found["kl_length.0004"].value == pytest.approx(float(kl[scored].mean()), rel=1e-4)
    assert found["kl_length.0004"].blocks == WINDOWS
