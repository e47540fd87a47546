"""Dropping and repeating blocks: which, how many, and what is recorded."""

import pytest
import torch

import tiny
from hemorrhage import plugins
from hemorrhage.architecture import blocks, targets
from tiny_data import TinyData


def changed(method, number, depth=5, **settings):
    """(changed model, what was achieved)."""
    plugin = plugins.get("modifications", method)
    model = tiny.build("llama", blocks=depth)
    return model, plugin.module.apply(model, plugin.settings({"blocks": number, **settings}), TinyData())


@pytest.mark.parametrize(("where", "dropped"), [("first", [0, 1]), ("last", [3, 4]), ("middle", [1, 2])])
def test_drop_takes_the_blocks_of_a_place(where, dropped):
    model, achieved = changed("drop_blocks", 2, where=where)
    assert achieved["dropped"] == dropped
    assert achieved["layer_map"] == [index for index in range(5) if index not in dropped]
    assert model.config.num_hidden_layers == 3


def test_drop_takes_the_blocks_of_least_influence_and_records_it():
    values = blocks.influence(tiny.build("llama", blocks=5), TinyData().tokens("default"))
    _, achieved = changed("drop_blocks", 2)
    assert achieved["dropped"] == sorted(sorted(range(5), key=values.__getitem__)[:2])
    assert achieved["influence"] == pytest.approx(values)
    assert achieved["share"] == 0.4


def test_at_least_one_block_stays():
    with pytest.raises(ValueError, match="blocks: 5 cannot be dropped from 5"):
        changed("drop_blocks", 5)
    plugin = plugins.get("modifications", "drop_blocks")
    with pytest.raises(ValueError, match="blocks: 30 cannot be dropped from 30"):
        plugin.module.refuse(plugin.settings({"blocks": 30}), {"num_hidden_layers": 30})


@pytest.mark.parametrize(
    ("number", "layer_map"),
    [
        (1, [0, 1, 2, 3, 4, 4]),
        (2, [0, 1, 2, 3, 3, 4, 4]),
        (5, [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]),
        (6, [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 4]),
    ],
)
def test_repeat_copies_in_place_and_again_when_all_are_copied(number, layer_map):
    model, achieved = changed("repeat_blocks", number, where="last")
    assert achieved["layer_map"] == layer_map
    assert model.config.num_hidden_layers == 5 + number


def test_a_copy_with_a_silent_residual_update_changes_nothing():
    model = tiny.build("llama")
    tokens = tiny.tokens()
    for name in ("self_attn.o_proj", "mlp.down_proj"):
        model.model.layers[1].get_submodule(name).weight.data.zero_()
    with torch.no_grad():
        before = model(tokens).logits
        blocks.rearrange(model, [0, 1, 1, 1, 2])
        assert torch.equal(model(tokens).logits, before)


def test_changing_a_copy_leaves_its_original():
    model, _ = changed("repeat_blocks", 1, depth=3, where="first")
    first, second = [target for target in targets.find(model) if target.name.endswith("q_proj.weight")][:2]
    kept = first.weight.clone()
    second.write(torch.zeros_like(kept))
    assert torch.equal(first.weight, kept)


@pytest.mark.parametrize("method", ["drop_blocks", "repeat_blocks"])
def test_wrong_settings_are_refused(method):
    with pytest.raises(ValueError, match=f"{method}: unknown where 'midle'. Did you mean 'middle'"):
        plugins.get("modifications", method).settings({"where": "midle"})
