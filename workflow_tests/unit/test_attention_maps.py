"""Attention maps side by side: hand-computed statistics, the maps of plain transformers, blocks that are matched."""

import copy
import math

import numpy as np
import pytest
import torch

import tiny
from hemorrhage.architecture import blocks, targets
from hemorrhage.corpus.tokens import TokenSet
from hemorrhage.measuring import attention_maps, residuals

WINDOWS, LENGTH = 3, 12
WITHOUT = ("mamba",)


def token_set():
    tokens = tiny.tokens(WINDOWS, LENGTH).numpy().astype(np.int32)
    scored = np.ones(tokens.shape, dtype=bool)
    scored[:, 0] = False
    scored[1, :5] = False
    return TokenSet(tokens, scored, 3 * scored.sum(1), ["a"] * WINDOWS, {})


def damaged(model):
    generator = torch.Generator().manual_seed(1)
    broken = copy.deepcopy(model)
    for target in targets.find(broken):
        noise = torch.randn(target.weight.shape, generator=generator).to(target.weight.device)
        target.write(target.weight + 0.3 * target.weight.std() * noise)
    return broken


def by_name(found):
    return {entry.metric: entry for entry in attention_maps.metrics(found, None)}


def test_statistics_by_hand():
    p = torch.tensor([[[1.0, 0.0], [0.5, 0.5]], [[0.5, 0.5], [1.0, 0.0]]])
    q = torch.tensor([[[0.0, 1.0], [0.5, 0.5]], [[1.0, 0.0], [1.0, 0.0]]])
    found = attention_maps.head_statistics(p, q)
    entropy = 0.25 * math.log(4) + 0.75 * math.log(4 / 3)  # of the mixture of (.5, .5) and (1, 0)
    expected = [[math.log(2), entropy - math.log(2) / 2], [0, -math.log(2)], [-1, 0.5]]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


def test_equal_maps_are_exactly_equal_and_small_changes_are_not_lost():
    p = torch.rand(4, 6, 50, generator=torch.Generator().manual_seed(0)).softmax(-1)
    assert not attention_maps.head_statistics(p, p).any()
    q = p.double() * (1 + 1e-5 * torch.linspace(-1, 1, 50))
    q = q / q.sum(-1, keepdim=True)
    found = attention_maps.head_statistics(p.double(), q)[0]
    expected = ((p.double() - q).square() / p.double()).sum(-1).sum(-1) / 8  # the leading term
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-14)


def test_a_broken_map_has_the_largest_divergence():
    p = torch.full((1, 2, 4), 0.25)
    found = attention_maps.head_statistics(p, torch.full((1, 2, 4), math.nan))
    assert float(found[0]) == pytest.approx(2 * math.log(2))
    assert found[1:].isnan().all()


def test_maps_are_those_of_plain_transformers(model, architecture):
    tokens, broken = token_set(), damaged(model)
    found = attention_maps.compare(model, broken, tokens, [0, 1, 2])
    if architecture in WITHOUT:
        assert found.blocks == [] and by_name(found)["attention_blocks"].value == 0
        assert len(by_name(found)) == 1
        return
    assert found.blocks == found.places == [0, 1, 2]
    maps = []
    for one in (model, broken):
        plain = copy.deepcopy(one)
        plain.set_attn_implementation("eager")
        ids = torch.as_tensor(tokens.tokens, dtype=torch.long, device=one.device)
        maps.append(plain(ids, output_attentions=True, use_cache=False).attentions)
    for block in range(3):
        for window in range(WINDOWS):
            scored = torch.as_tensor(tokens.scored[window])
            rows = [side[block][window][:, scored].detach() for side in maps]
            expected = attention_maps.head_statistics(*rows).cpu().numpy()
            for name, values in zip(attention_maps.STATISTICS, expected, strict=True):
                np.testing.assert_allclose(found.sums[name][block, :, window], values, rtol=1e-3, atol=1e-5)
    arrays, metrics = attention_maps.arrays(found), by_name(found)
    assert arrays["jensen_shannon"].shape == (3, 4)
    assert metrics["disruption.01"].value == pytest.approx(arrays["jensen_shannon"][1].mean() / math.log(2))
    assert metrics["disruption"].value == pytest.approx(arrays["jensen_shannon"].mean() / math.log(2))
    assert 0 < metrics["disruption"].value < 1


def test_the_implementation_of_attention_is_put_back(model, architecture):
    before = model.config._attn_implementation
    with attention_maps.eager(model):
        assert model.config._attn_implementation == "eager"
    assert model.config._attn_implementation == before


def test_no_map_is_kept(monkeypatch):
    """Beside the two maps that are compared no other one is alive."""
    import weakref

    seen, own = [], attention_maps._map_of

    def watch(out, length):
        found = own(out, length)
        if found is not None and length == LENGTH:
            seen.append(weakref.ref(found))
            assert sum(old() is not None for old in seen) <= 2
        return found

    monkeypatch.setattr(attention_maps, "_map_of", watch)
    model = tiny.build("llama")
    attention_maps.compare(model, damaged(model), token_set(), [0, 1, 2])
    assert len(seen) == 2 * 3 * WINDOWS


def test_copies_made_in_memory_are_compared_with_what_they_copy():
    """A copied block holds a copy of the config, which has to become eager too."""
    model, tokens = tiny.build("llama", blocks=4), token_set()
    longer, layer_map = copy.deepcopy(model), [0, 1, 1, 2, 3]
    blocks.rearrange(longer, layer_map)
    found = attention_maps.compare(model, longer, tokens, residuals.sources(longer, layer_map, 4))
    assert (found.blocks, found.places) == ([0, 1, 2, 3], [0, 2, 3, 4])
    values = [by_name(found)[f"disruption.{block:02d}"].value for block in range(4)]
    assert values[0] == 0 and min(values[1:]) > 0


def test_a_copy_that_writes_nothing_is_passed_over():
    """Identity blocks lose nothing; the map inside them, of another input, has no effect."""
    model, tokens = tiny.build("llama"), token_set()
    longer, layer_map = copy.deepcopy(model), [0, 1, 1, 2]
    blocks.rearrange(longer, layer_map)
    for weight in (longer.model.layers[2].self_attn.o_proj.weight, longer.model.layers[2].mlp.down_proj.weight):
        weight.data.zero_()
    found = attention_maps.compare(model, longer, tokens, layer_map)
    assert found.places == [0, 1, 3]
    assert by_name(found)["disruption"].value == 0


def test_blocks_with_another_number_of_heads_are_left_out():
    model = tiny.build("llama")
    config = copy.deepcopy(model.config)
    config.num_attention_heads, config.num_key_value_heads = 2, 2
    other = type(model)(config).eval()
    assert attention_maps.compare(model, other, token_set(), [0, 1, 2]).blocks == []
