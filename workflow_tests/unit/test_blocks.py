"""Surgery on the block list: influence, the order of choice, places, configs, attachments."""

import pytest
import torch

import tiny
from hemorrhage.architecture import attachments, blocks, targets


def plain_influence(model, tokens):
    """1 - mean cosine between successive residual states, from transformers' own hidden states."""
    caught = []
    layers = targets.blocks(model)[1]

    def catch(_module, args, kwargs, out):
        before = args[0] if args else kwargs["hidden_states"]
        caught.append((before.clone(), (out[0] if isinstance(out, tuple) else out).clone()))

    for layer in layers:
        layer.register_forward_hook(catch, with_kwargs=True)
    with torch.no_grad():
        model(tokens)
    return [
        1 - float((before * after).sum(-1).div(before.norm(dim=-1) * after.norm(dim=-1)).mean())
        for before, after in caught
    ]


def test_influence_is_the_formula_of_shortgpt(model, architecture, device):
    tokens = tiny.tokens(4, 16, device=device)
    expected = plain_influence(tiny.build(architecture, device=device), tokens)
    assert blocks.influence(model, tokens) == pytest.approx(expected, abs=1e-5)
    assert blocks.influence(model, tokens, chunk=3) == pytest.approx(expected, abs=1e-5)
    assert not any(layer._forward_hooks for layer in targets.blocks(model)[1])


def test_order_starts_where_it_is_told():
    model, tokens = tiny.build("llama", blocks=5), tiny.tokens()
    assert blocks.order(model, "first", tokens)[0] == [0, 1, 2, 3, 4]
    assert blocks.order(model, "last", tokens)[0] == [4, 3, 2, 1, 0]
    assert blocks.order(model, "middle", tokens)[0] == [2, 1, 3, 0, 4]
    chosen, values = blocks.order(model, "influence", tokens)
    assert [values[index] for index in chosen] == sorted(values)


def test_order_refuses_a_broken_model():
    model = tiny.build("llama")
    targets.find(model)[0].weight[0, 0] = float("nan")
    with pytest.raises(ValueError, match="influence is not finite"):
        blocks.order(model, "influence", tiny.tokens())


def by_hand(model, layer_map, tokens):
    """Run a Llama's blocks one by one in the given order."""
    inner = model.model
    hidden = inner.embed_tokens(tokens)
    positions = torch.arange(tokens.shape[1])[None]
    rotary = inner.rotary_emb(hidden, positions)
    mask = torch.full((tokens.shape[1],) * 2, float("-inf")).triu(1)[None, None]
    for source in layer_map:
        hidden = inner.layers[source](hidden, attention_mask=mask, position_ids=positions, position_embeddings=rotary)
    return model.lm_head(inner.norm(hidden))


@pytest.mark.parametrize("layer_map", [[0, 2], [0, 0, 1, 2], [2, 1, 0], [1, 1, 1, 1, 1]])
def test_rearranged_blocks_run_in_the_order_of_the_map(layer_map):
    model, tokens = tiny.build("llama"), tiny.tokens()
    with torch.no_grad():
        expected = by_hand(model, layer_map, tokens)
        blocks.rearrange(model, layer_map)
        torch.testing.assert_close(model(tokens).logits, expected, rtol=1e-4, atol=1e-4)


def test_every_place_in_a_copy_is_its_own(model):
    blocks.rearrange(model, [0, 1, 1, 2, 2])
    layers = targets.blocks(model)[1]
    for place, layer in enumerate(layers):
        assert {module.layer_idx for module in layer.modules() if hasattr(module, "layer_idx")} <= {place}
    assert len({id(parameter) for layer in layers for parameter in layer.parameters()}) == sum(
        len(list(layer.parameters())) for layer in layers
    )


def test_lists_with_an_entry_a_block_follow_the_map():
    model = tiny.build("gemma2")
    kinds = list(model.config.layer_types)
    blocks.rearrange(model, [0, 1, 1, 2])
    assert model.config.layer_types == [kinds[0], kinds[1], kinds[1], kinds[2]]
    assert model.config.num_hidden_layers == 4


def test_tied_embeddings_stay_tied():
    model = tiny.build("llama")
    blocks.rearrange(model, [0, 0, 1, 2])
    assert model.lm_head.weight is model.model.embed_tokens.weight


def test_attachments_move_with_their_blocks():
    model, tokens = tiny.build("llama"), tiny.tokens()
    for block in (0, 1):
        name = f"model.layers.{block}.mlp.down_proj.weight"
        attachments.attach(
            model, {"kind": "activation_quantizer", "target": name, "bits": 2, "grid": "per_token", "scale": None}
        )
    attachments.attach(model, {"kind": "logit_scale", "factor": 0.5})
    blocks.rearrange(model, [1, 1, 2])
    specs = attachments.attached(model)
    assert [spec.get("target") for spec in specs] == [
        "model.layers.0.mlp.down_proj.weight",
        "model.layers.1.mlp.down_proj.weight",
        None,
    ]
    fresh = tiny.build("llama")
    blocks.rearrange(fresh, [1, 1, 2])
    for spec in specs:
        attachments.attach(fresh, spec)
    with torch.no_grad():
        assert torch.equal(fresh(tokens).logits, model(tokens).logits)


def test_a_config_that_was_not_brought_along_is_caught():
    model = tiny.build("llama")
    model.config.num_hidden_layers = 2
    with pytest.raises(ValueError, match="never run"):
        blocks.check(model)


def test_an_architecture_that_fixes_blocks_by_depth_is_refused():
    from transformers import AutoModelForCausalLM, Qwen3MoeConfig

    config = Qwen3MoeConfig(
        vocab_size=128,
        hidden_size=32,
        intermediate_size=64,
        moe_intermediate_size=16,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_experts=4,
        num_experts_per_tok=2,
        mlp_only_layers=[0],
    )
    model = AutoModelForCausalLM.from_config(config).eval()
    with pytest.raises(ValueError, match="by the depth of a block"):
        blocks.rearrange(model, [1, 2])
