"""Width growth and mixtures of experts: what keeps the function, and what routing changes do."""

import pytest
import torch

import tiny
from hemorrhage import checkpoints, plugins
from hemorrhage.architecture import attachments, blocks, experts, feedforward, routers, targets
from tiny_data import TinyData

EQUAL = {"rtol": 0, "atol": 1e-5}
DENSE = ("llama", "gpt2", "opt", "gpt_neox", "qwen3", "gemma2")


def changed(method, architecture="llama", model=None, **settings):
    """(changed model, what was achieved)."""
    plugin = plugins.get("modifications", method)
    model = model or tiny.build(architecture)
    return model, plugin.module.apply(model, plugin.settings(settings), TinyData(architecture))


def logits(model):
    with torch.no_grad():
        return model(tiny.tokens()).logits


@pytest.mark.parametrize("architecture", DENSE)
@pytest.mark.parametrize("share", [0.25, 1.0, 2.5])
def test_width_growth_preserves_the_function(architecture, share, tmp_path):
    model, achieved = changed("widen", architecture, share=share)
    assert achieved == {"channels_before": 64, "channels": 64 + int(64 * share)}
    expected = logits(tiny.build(architecture))
    torch.testing.assert_close(logits(model), expected, **EQUAL)
    checkpoints.save(model, tmp_path / "saved", {"attachments": []})
    loaded = checkpoints.load(tmp_path / "saved", "float32", "cpu")
    assert feedforward.find(loaded)[0].channels == 64 + int(64 * share)
    assert torch.equal(logits(loaded), logits(model))


def test_noise_tells_duplicates_apart_and_leaves_the_originals():
    model, _ = changed("widen", share=0.5, noise=0.2)
    part, before = feedforward.find(model)[0], feedforward.find(tiny.build("llama"))[0]
    for up, old in zip(part.ups, before.ups, strict=True):
        assert torch.equal(up.weight[:64], old.weight)
        nearest = (up.weight[64:, None] - old.weight[None]).abs().amax(-1).amin(-1)
        assert (nearest > 0).all()
    assert not torch.allclose(logits(model), logits(tiny.build("llama")), atol=1e-3)


@pytest.mark.parametrize(("architecture", "reason"), [("mixtral", "fused experts"), ("mamba", "no dense feed-forward")])
def test_what_has_no_dense_channels_is_not_widened(architecture, reason):
    with pytest.raises(ValueError, match=reason):
        changed("widen", architecture)


@pytest.mark.parametrize(("architecture", "name"), [("llama", "MixtralForCausalLM"), ("qwen3", "Qwen3MoeForCausalLM")])
@pytest.mark.parametrize("settings", [{}, {"router": "zeros"}, {"experts": 6, "active": 3}, {"active": 1}])
def test_upcycling_with_equal_experts_preserves_the_function(architecture, name, settings):
    model, achieved = changed("upcycle", architecture, **settings)
    assert type(model).__name__ == achieved["architecture"] == name
    torch.testing.assert_close(logits(model), logits(tiny.build(architecture)), **EQUAL)
    assert model.config.tie_word_embeddings == (model.lm_head.weight is model.model.embed_tokens.weight)
    assert all(target.kind == "expert" for target in targets.find(model) if "mlp" in target.name)


def test_an_upcycled_model_is_saved_generates_and_can_be_routed(tmp_path):
    model, _ = changed("upcycle", sigma=0.2)
    checkpoints.save(model, tmp_path / "saved", {"attachments": []})
    loaded = checkpoints.load(tmp_path / "saved", "float32", "cpu")
    assert torch.equal(logits(loaded), logits(model))
    prompt = tiny.tokens(2, 6)
    texts = [
        loaded.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=8,
            do_sample=False,
            use_cache=cached,
            eos_token_id=None,
            pad_token_id=0,
        )
        for cached in (True, False)
    ]
    assert torch.equal(*texts)
    changed("fewer_experts", model=loaded, experts=1)
    assert loaded.config.num_experts_per_tok == 1


def test_equal_zero_routers_choose_the_first_experts():
    _, achieved = changed("upcycle", router="zeros")
    assert achieved["unused_experts"] == [2, 2, 2]
    assert achieved["router_entropy"] == pytest.approx([1, 1, 1])


def test_upcycling_refuses_what_has_no_match_or_attachments():
    with pytest.raises(ValueError, match="no mixture of experts that matches"):
        changed("upcycle", "gpt2")
    model = tiny.build("llama")
    attachments.attach(model, {"kind": "logit_scale", "factor": 0.5})
    with pytest.raises(ValueError, match="upcycling must come before"):
        changed("upcycle", model=model)
    with pytest.raises(ValueError, match="active: 5 of 4 experts"):
        plugins.get("modifications", "upcycle").settings({"active": 5})


def test_loads_are_how_often_fused_experts_are_chosen():
    model, tokens = tiny.build("mixtral"), tiny.tokens(6, 12)
    counts, entropies = routers.loads(model, tokens)
    assert [float(count.sum()) for count in counts] == [2.0 * tokens.numel()] * 3
    chunked, chunked_entropies = routers.loads(model, tokens, chunk=4)
    assert all(torch.equal(one, other) for one, other in zip(counts, chunked, strict=True))
    assert chunked_entropies == pytest.approx(entropies)
    with torch.no_grad():
        found = model(tokens, output_router_logits=True).router_logits
    probabilities = [part.float().softmax(-1) for part in found]
    expected = [float(-(p * p.log()).sum(-1).mean()) for p in probabilities]
    assert entropies == pytest.approx(expected, rel=1e-4)


def test_fewer_experts_are_what_plain_transformers_gives_with_that_config():
    model, achieved = changed("fewer_experts", "mixtral", experts=1)
    assert (achieved["active_before"], achieved["active"]) == (2, 1)
    config = tiny.CONFIGS["mixtral"](3)
    config.num_experts_per_tok = 1
    plain = type(model)(config).eval()
    plain.load_state_dict(tiny.build("mixtral").state_dict())
    assert torch.equal(logits(model), logits(plain))
    with pytest.raises(ValueError, match="at least one must stay"):
        changed("fewer_experts", "mixtral", experts=2)


def test_dropped_experts_are_the_least_used_and_the_rest_stay():
    before = tiny.build("mixtral")
    counts, _ = routers.loads(before, TinyData("mixtral").tokens("default"))
    model, achieved = changed("drop_experts", "mixtral", experts=1)
    for mixture, old, count, gone in zip(
        routers.find(model), routers.find(before), counts, achieved["dropped"], strict=True
    ):
        assert gone == [int(count.argmin())]
        kept = [index for index in range(4) if index not in gone]
        assert torch.equal(mixture.experts.down_proj, old.experts.down_proj[kept])
        assert torch.equal(mixture.router.weight, old.router.weight[kept])
        assert experts.count(mixture.experts) == mixture.experts.num_experts == model.config.num_local_experts == 3
    assert blocks.ran(model) == {0, 1, 2}
    assert changed("drop_experts", "mixtral", experts=1, by="order")[1]["dropped"] == [[3]] * 3
    with pytest.raises(ValueError, match="each token goes to 2"):
        changed("drop_experts", "mixtral", experts=3)


def test_router_noise_leaves_the_experts():
    model, achieved = changed("router_noise", "mixtral", sigma=1)
    before = tiny.build("mixtral")
    for mixture, old in zip(routers.find(model), routers.find(before), strict=True):
        assert torch.equal(mixture.experts.down_proj, old.experts.down_proj)
        noise = mixture.router.weight - old.router.weight
        assert float(noise.detach().std() / old.router.weight.detach().std()) == pytest.approx(1, abs=0.25)
    assert achieved["load_entropy"] != achieved["load_entropy_before"]


@pytest.mark.parametrize("method", ["fewer_experts", "router_noise", "drop_experts"])
def test_a_dense_model_has_no_routing(method):
    with pytest.raises(ValueError, match="LlamaForCausalLM: it has no mixture of experts"):
        changed(method)
