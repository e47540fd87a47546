"""Added blocks: where copies go, what repairs do to them, and the control that loses nothing."""

import math

import pytest
import torch

import tiny
from hemorrhage import checkpoints, plugins
from hemorrhage.architecture import attachments, expansion, randomness, targets, writers
from tiny_data import TinyData


def changed(method, architecture="llama", depth=5, **settings):
    """(changed model, what was achieved)."""
    plugin = plugins.get("modifications", method)
    model = tiny.build(architecture, blocks=depth)
    return model, plugin.module.apply(model, plugin.settings(settings), TinyData(architecture))


def logits(model):
    with torch.no_grad():
        return model(tiny.tokens()).logits


def weight(model, block, name):
    return next(target.weight for target in targets.find(model) if target.block == block and name in target.name)


def test_writers_are_what_adds_to_the_residual_stream(architecture):
    model = tiny.build(architecture)
    found = writers.find(model)
    assert {writer.block for writer in found} == {0, 1, 2}
    for writer in found:
        if writer.block == 1:
            writer.scale(0.0)
    writers.require_silent(model, [1])
    with pytest.raises(ValueError, match=r"blocks \[0\] change their input"):
        writers.require_silent(model, [0, 1])


@pytest.mark.parametrize("blocks", [1, 3, 7])
def test_identity_blocks_lose_nothing_bit_for_bit(architecture, blocks, tmp_path):
    model, achieved = changed("identity_blocks", architecture, depth=3, blocks=blocks)
    assert len(achieved["layer_map"]) == 3 + blocks
    expected = logits(tiny.build(architecture))
    assert torch.equal(logits(model), expected)
    checkpoints.save(model, tmp_path / "saved", {"attachments": attachments.attached(model)})
    assert torch.equal(logits(checkpoints.load(tmp_path / "saved", "float32", "cpu")), expected)


def test_identity_blocks_follow_their_group_of_blocks():
    assert changed("identity_blocks", depth=6, blocks=2)[1]["places"] == [2, 6]


@pytest.mark.parametrize(
    ("settings", "layer_map"),
    [
        ({"blocks": 2, "start": 1}, [0, 1, 2, 1, 2, 3, 4]),
        ({"blocks": 4, "start": 1, "times": 2}, [0, 1, 2, 1, 2, 1, 2, 3, 4]),
        ({"blocks": 3, "start": 4, "length": 1}, [0, 1, 2, 3, 4, 4, 4, 4]),
        ({"blocks": 0, "start": 2}, [0, 1, 2, 3, 4]),
    ],
)
def test_a_range_is_repeated_as_a_whole(settings, layer_map):
    assert changed("repeat_blocks", **settings)[1]["layer_map"] == layer_map


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"blocks": 3, "start": 0, "times": 2}, "blocks: 3 is not length"),
        ({"blocks": 2, "length": 2}, "start: it is needed"),
        ({"residual_scale": "half"}, "residual_scale: 'half' is neither a number"),
        ({"residual_scale": 2}, "residual_scale: 2.0 is outside"),
        ({"scaled": "all"}, "unknown scaled 'all'"),
    ],
)
def test_wrong_repetitions_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        plugins.get("modifications", "repeat_blocks").settings(settings)


def test_a_range_beyond_the_model_is_refused():
    with pytest.raises(ValueError, match="start: blocks 3 to 5 cannot be repeated in a model of 5"):
        changed("repeat_blocks", start=3, blocks=3)


@pytest.mark.parametrize(
    ("blocks", "layer_map"),
    [
        (1, [0, 1, 2, 2, 3, 4]),
        (2, [0, 1, 2, 1, 2, 3, 4]),
        (5, [0, 1, 2, 3, 4, 0, 1, 2, 3, 4]),
    ],
)
def test_solar_leaves_the_seam_out(blocks, layer_map):
    _, achieved = changed("upscale_depth", blocks=blocks)
    assert achieved["layer_map"] == layer_map
    assert achieved["lost_of_first"] + achieved["lost_of_second"] == 5 - blocks
    plugin = plugins.get("modifications", "upscale_depth")
    with pytest.raises(ValueError, match="add at most 30, not 31"):
        plugin.module.refuse(plugin.settings({"blocks": 31}), {"num_hidden_layers": 30})


@pytest.mark.parametrize("added", [1, 2, 5, 8])
@pytest.mark.parametrize("parts", [2, 3, 4])
def test_ranges_overlap_by_what_is_added_and_leave_nothing_out(added, parts):
    ranges = plugins.get("modifications", "passthrough").module.overlapping(8, added, parts)
    layer_map = [block for first, last in ranges for block in range(first, last)]
    assert len(layer_map) == 8 + added
    assert set(layer_map) == set(range(8))
    assert all(first < last for first, last in ranges)


def test_ranges_are_given_as_a_list_or_as_text():
    plugin = plugins.get("modifications", "passthrough")
    settings = plugin.settings({"ranges": [[0, 3], [2, 5]]})
    assert settings == plugin.settings({"ranges": "0-3.2-5"})
    assert settings.blocks is None
    assert changed("passthrough", ranges="0-3.2-5")[1]["layer_map"] == [0, 1, 2, 2, 3, 4]
    for wrong, message in (([0, 3], "is not a list of pairs"), ("3-1", "ends before"), ("a-b", "is neither")):
        with pytest.raises(ValueError, match=message):
            plugin.settings({"ranges": wrong})
    with pytest.raises(ValueError, match="ends beyond the 5 blocks"):
        changed("passthrough", ranges="0-3.2-6")


@pytest.mark.parametrize(("blocks", "repeated"), [(1, [2]), (2, [1, 3]), (5, [0, 1, 2, 3, 4]), (6, [0, 1, 2, 2, 3, 4])])
def test_interleaved_blocks_are_spread_evenly(blocks, repeated):
    assert changed("interleave_blocks", blocks=blocks)[1]["repeated"] == repeated


def test_a_scale_multiplies_what_copies_write_and_nothing_else():
    plain, _ = changed("interleave_blocks", blocks=1)
    scaled, achieved = changed("interleave_blocks", blocks=1, residual_scale="sqrt")
    assert achieved["residual_scale"] == pytest.approx(1 / math.sqrt(2))
    for before, after in zip(targets.find(plain), targets.find(scaled), strict=True):
        writes = before.block == 3 and ("o_proj" in before.name or "down_proj" in before.name)
        torch.testing.assert_close(after.weight, before.weight * (2**-0.5 if writes else 1))


def test_all_runs_are_scaled_by_how_often_their_block_runs():
    model, achieved = changed("repeat_blocks", start=1, blocks=2, length=1, scaled="runs", residual_scale="sqrt")
    assert achieved["residual_scale"] == pytest.approx(1 / math.sqrt(3))
    original = weight(tiny.build("llama", blocks=5), 1, "o_proj")
    for place in (1, 2, 3):
        torch.testing.assert_close(weight(model, place, "o_proj"), original / math.sqrt(3))


def test_a_scale_of_zero_loses_nothing(architecture):
    model, _ = changed("interleave_blocks", architecture, depth=3, blocks=2, residual_scale=0)
    assert torch.equal(logits(model), logits(tiny.build(architecture)))


def test_a_fitted_scale_has_the_lowest_loss_of_those_tried():
    tokens = TinyData().tokens("default")
    model, achieved = changed("interleave_blocks", blocks=3, residual_scale="fitted")
    fitted = expansion.loss(model, tokens)
    for factor in (0, 0.25, 0.5, 0.75, 1):
        assert fitted <= expansion.loss(changed("interleave_blocks", blocks=3, residual_scale=factor)[0], tokens) + 1e-3
    assert 0 <= achieved["residual_scale"] <= 1
    again, _ = changed("interleave_blocks", blocks=3, residual_scale=achieved["residual_scale"])
    torch.testing.assert_close(logits(again), logits(model))


def test_loss_is_that_of_transformers():
    model, tokens = tiny.build("llama"), tiny.tokens()
    with torch.no_grad():
        assert expansion.loss(model, tokens) == pytest.approx(float(model(tokens, labels=tokens).loss), rel=1e-5)


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "qwen3"])
def test_attenuation_multiplies_the_attention_logits_by_its_square(architecture):
    plain, _ = changed("interleave_blocks", architecture, depth=3, blocks=1)
    flat, _ = changed("interleave_blocks", architecture, depth=3, blocks=1, attenuation=0.5)
    inside = [changed_model.get_submodule(targets.blocks(changed_model)[0])[2] for changed_model in (plain, flat)]
    attention = [
        next(module for name, module in block.named_modules() if name in ("self_attn", "attn")) for block in inside
    ]
    attention[0].scaling *= 0.25
    torch.testing.assert_close(logits(flat), logits(plain), rtol=1e-4, atol=1e-4)


def test_attenuation_is_refused_where_query_and_key_are_not_apart():
    with pytest.raises(ValueError, match="attenuation: GPTNeoXForCausalLM has no query and key of their own"):
        changed("interleave_blocks", "gpt_neox", depth=3, blocks=1, attenuation=0.5)


def test_noise_is_relative_to_the_spread_of_each_weight():
    plain, _ = changed("noisy_blocks", depth=3, blocks=1, sigma=0)
    noisy, achieved = changed("noisy_blocks", depth=3, blocks=1, sigma=0.5)
    assert achieved["places"] == [2]
    for before, after in zip(targets.find(plain), targets.find(noisy), strict=True):
        noise = after.weight - before.weight
        assert float(noise.std() / before.weight.std()) == pytest.approx(0.5 if before.block == 2 else 0, abs=0.05)


def test_random_blocks_are_drawn_as_the_architecture_draws_and_copy_none():
    state = torch.random.get_rng_state()
    model, achieved = changed("random_blocks", depth=3, blocks=1)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert achieved["layer_map"] == [0, 1, None, 2]
    block = model.model.layers[2]
    assert float(block.mlp.up_proj.weight.detach().std()) == pytest.approx(model.config.initializer_range, rel=0.1)
    assert torch.equal(block.input_layernorm.weight, torch.ones(32))
    assert not torch.equal(block.mlp.up_proj.weight, model.model.layers[1].mlp.up_proj.weight)


def test_the_record_of_a_checkpoint_has_none_for_random_blocks(tmp_path):
    tiny.write_folder(tmp_path / "base")
    data = TinyData()
    data.base = tmp_path / "base"
    recipe = [
        {"method": "random_blocks", "settings": {"blocks": 1}},
        {"method": "repeat_blocks", "settings": {"blocks": 1, "start": 0}},
    ]
    _, record = checkpoints.follow(recipe, data)
    assert record["layer_map"] == [0, 0, 1, None, 2]


def test_seeds_of_words_are_reproducible_and_apart():
    like = torch.zeros(4, 4)
    assert torch.equal(randomness.normal(like, "a"), randomness.normal(like, "a"))
    assert not torch.equal(randomness.normal(like, "a"), randomness.normal(like, "b"))


@pytest.mark.parametrize(
    "method", ["identity_blocks", "interleave_blocks", "upscale_depth", "passthrough", "random_blocks", "noisy_blocks"]
)
def test_tied_embeddings_stay_tied(method):
    model, _ = changed(method, depth=3, blocks=1)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert model.config.num_hidden_layers == 4
