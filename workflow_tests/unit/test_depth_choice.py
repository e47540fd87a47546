"""Which blocks go: greedily by loss and by angle, each against the plain computation."""

import math

import pytest
import torch
from torch.nn import functional as F

import tiny
from hemorrhage import plugins
from hemorrhage.architecture import blocks, depth_choice, greedy_depth
from tiny_data import TinyData


def loss_without(architecture, gone, tokens):
    """Mean cross-entropy of the model from which the blocks were really removed."""
    model = tiny.build(architecture, blocks=4)
    blocks.rearrange(model, [index for index in range(4) if index not in gone])
    with torch.no_grad():
        logits = model(tokens, use_cache=False).logits[:, :-1].float()
    return float(F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten()))


@pytest.mark.parametrize("chunk", [None, 3])
def test_greedy_losses_are_those_of_the_models_without_the_blocks(architecture, chunk):
    tokens = TinyData().tokens("default")
    model = tiny.build(architecture, blocks=4)
    with torch.no_grad():
        before = model(tokens, use_cache=False).logits
    order, losses = greedy_depth.choose(model, tokens, 2, chunk)
    with torch.no_grad():
        assert torch.equal(model(tokens, use_cache=False).logits, before)
    for step, found in enumerate(losses):
        left = [index for index in range(4) if index not in order[:step]]
        expected = {index: loss_without(architecture, [*order[:step], index], tokens) for index in left}
        assert {i: value for i, value in enumerate(found) if value is not None} == pytest.approx(expected, abs=1e-4)
        assert order[step] == min(left, key=expected.__getitem__)


def test_angular_is_the_formula_and_drops_neighbours():
    tokens, model = TinyData().tokens("default"), tiny.build("llama", blocks=5)
    seen = []
    handles = [
        block.register_forward_pre_hook(lambda _m, args: seen.append(args[0][:, -1])) for block in model.model.layers
    ]
    handles.append(model.model.norm.register_forward_pre_hook(lambda _m, args: seen.append(args[0][:, -1])))
    with torch.no_grad():
        model(tokens, use_cache=False)
    for handle in handles:
        handle.remove()
    expected = [float(torch.cosine_similarity(seen[i], seen[i + 2]).arccos().mean() / math.pi) for i in range(4)]
    dropped, measured = depth_choice.choose(model, "angular", 2, tokens, chunk=3)
    assert measured["distances"] == pytest.approx(expected, abs=1e-5)
    start = min(range(4), key=expected.__getitem__)
    assert dropped == [start, start + 1]


@pytest.mark.parametrize("where", ["angular", "sleb"])
def test_blocks_are_dropped_and_recorded(where):
    plugin = plugins.get("modifications", "drop_blocks")
    model = tiny.build("llama", blocks=5)
    achieved = plugin.module.apply(model, plugin.settings({"blocks": 2, "where": where}), TinyData())
    assert model.config.num_hidden_layers == 3
    assert len(achieved["dropped"]) == 2
    assert set(achieved) == {
        "dropped",
        "share",
        "layer_map",
        *(["distances"] if where == "angular" else ["order", "losses"]),
    }
    nothing = plugin.module.apply(model, plugin.settings({"blocks": 0, "where": where}), TinyData())
    assert nothing["dropped"] == []
