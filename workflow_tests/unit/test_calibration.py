"""The walk: groups, statistics, order, the chunked form."""

import pytest
import torch

import tiny
from hemorrhage.activations import calibration
from hemorrhage.activations.inputs import STATISTICS
from hemorrhage.architecture import targets

VECTORS = ("square_mean", "absolute_max", "absolute_mean", "gram")
SHARED = {  # group sizes inside one block, in the order in which they run
    "llama": [3, 1, 2, 1],
    "qwen3": [3, 1, 2, 1],
    "gemma2": [3, 1, 2, 1],
    "gpt2": [1, 1, 1, 1],
    "opt": [3, 1, 1, 1],
    "gpt_neox": [1, 1, 1, 1],
    "mixtral": [3, 1] + 8 * [1],
    "mamba": [1, 1, 1, 1],
}


def groups_of(model, tokens, **options):
    groups = []
    calibration.walk(model, tokens, groups.append, **options)
    return groups


def wanda(group):
    """Prune half of every row by |w|·‖x‖, by rank."""
    for target in group.targets:
        weight = target.weight.clone()
        score = weight.abs() * group.square_mean().sqrt() if group.rows else weight.abs()
        weight.scatter_(1, score.argsort(dim=1, stable=True)[:, : weight.shape[1] // 2], 0.0)
        target.write(weight)


def hooks(model):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def test_targets_that_share_an_input_are_one_group(model, architecture, device):
    groups = groups_of(model, tiny.tokens(device=device))
    assert [len(g.targets) for g in groups] == 3 * SHARED[architecture]
    assert {t.name for g in groups for t in g.targets} == {t.name for t in targets.find(model)}
    assert [g.block for g in groups] == sorted(g.block for g in groups)
    assert hooks(model) == 0


def test_statistics_are_those_of_the_input(architecture):
    model, tokens = tiny.build(architecture), tiny.tokens(3, 12)
    inputs = {}
    handles = [
        t.module.register_forward_pre_hook(lambda m, args, t=t: inputs.update({t.name: args[0].clone()}))
        for t in targets.find(model)
        if t.called
    ]
    model(tokens)
    for handle in handles:
        handle.remove()

    def compare(group):
        if group.targets[0].name not in inputs:
            return
        x = inputs[group.targets[0].name].flatten(0, -2).double()
        assert group.rows == 36
        torch.testing.assert_close(group.square_mean().double(), x.square().mean(0), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(group.absolute_mean().double(), x.abs().mean(0), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(group.absolute_max().double(), x.abs().amax(0), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(group.gram().double(), x.T @ x / len(x), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(group.samples().double(), x, rtol=1e-5, atol=1e-6)

    calibration.walk(model, tokens, compare, statistics=STATISTICS)


def test_a_time_step_projection_sees_its_slice_of_x_proj():
    model, tokens = tiny.build("mamba"), tiny.tokens(2, 10)
    slices = {}
    for index, block in enumerate(model.backbone.layers):
        block.mixer.x_proj.register_forward_hook(lambda m, a, out, i=index: slices.update({i: out[..., :4].clone()}))
    seen = [g for g in groups_of(model, tokens, statistics=("samples",)) if g.targets[0].kind == "functional"]
    assert [g.block for g in seen] == [0, 1, 2]
    for group in seen:
        assert torch.equal(group.samples(), slices[group.block].flatten(0, -2))


def test_a_group_sees_the_changed_weights_before_it(architecture):
    changed, plain = tiny.build(architecture), tiny.build(architecture)
    before = groups_of(plain, tiny.tokens())
    after = []

    def visit(group):
        after.append(group)
        wanda(group)

    calibration.walk(changed, tiny.tokens(), visit)
    assert torch.equal(before[0].square_mean(), after[0].square_mean())
    same = [torch.equal(a.square_mean(), b.square_mean()) for a, b in zip(before, after, strict=True)]
    assert sum(same) < len(same) / 2
    groups = groups_of(changed, tiny.tokens())  # what was seen while changing is what the changed model makes
    for a, b in zip(after, groups, strict=True):
        torch.testing.assert_close(a.square_mean(), b.square_mean(), rtol=1e-4, atol=1e-6)


def test_block_order_sees_each_block_unchanged(architecture):
    model, tokens = tiny.build(architecture), tiny.tokens()
    plain = groups_of(tiny.build(architecture), tokens)
    seen = []

    def visit(group):
        seen.append(group)
        wanda(group)

    calibration.walk(model, tokens, visit, order="block")
    for a, b in zip(plain, seen, strict=True):
        same = torch.allclose(a.square_mean(), b.square_mean(), rtol=1e-5)
        assert same == (a.block == 0) or a.rows != b.rows


def test_a_walk_that_changes_nothing_leaves_the_model_alone(model, device):
    tokens = tiny.tokens(device=device)
    before = model(tokens).logits
    for options in ({}, {"chunk": 2}, {"order": "block"}):
        calibration.walk(model, tokens, lambda group: None, **options)
        assert torch.equal(model(tokens).logits, before)


@pytest.mark.parametrize("chunk", [None, 2])
def test_hooks_go_after_an_error(model, device, chunk):
    def visit(group):
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        calibration.walk(model, tiny.tokens(device=device), visit, chunk=chunk)
    assert hooks(model) == 0
    assert not any("forward" in vars(module) for module in model.modules())


def test_the_producer_is_the_norm_before_the_group():
    groups = groups_of(tiny.build("llama"), tiny.tokens())[:4]
    path = "model.layers.0"
    assert [g.producer for g in groups] == [f"{path}.input_layernorm", None, f"{path}.post_attention_layernorm", None]
    groups = groups_of(tiny.build("gpt_neox"), tiny.tokens())[:4]
    assert [g.producer is None for g in groups] == [False, True, False, True]
    groups = groups_of(tiny.build("mixtral"), tiny.tokens())  # the router reads the second norm too
    assert {g.producer for g in groups if g.block == 0} == {f"{path}.input_layernorm", None}
    assert groups_of(tiny.build("mamba"), tiny.tokens())[0].producer == "backbone.layers.0.norm"


def test_activation_quantizers_keep_groups_and_are_seen():
    from hemorrhage.architecture import attachments

    model, tokens = tiny.build("llama"), tiny.tokens()
    for target in targets.find(model):
        attachments.attach(
            model,
            {"kind": "activation_quantizer", "target": target.name, "bits": 2, "grid": "per_token", "scale": None},
        )
    groups = groups_of(model, tokens, statistics=("samples",))
    assert [len(g.targets) for g in groups[:4]] == [3, 1, 2, 1]
    assert all(len(row.unique()) <= 3 for row in groups[0].samples())


def test_half_precision_is_summed_in_float32(device):
    model = tiny.build("llama", device=device).bfloat16()
    group = groups_of(model, tiny.tokens(device=device), statistics=VECTORS)[0]
    assert all(getattr(group, name)().dtype == torch.float32 for name in VECTORS)


def test_bad_arguments_are_refused():
    model, tokens = tiny.build(blocks=2), tiny.tokens()
    with pytest.raises(ValueError, match="Did you mean 'block'"):
        calibration.walk(model, tokens, print, order="blocks")
    with pytest.raises(ValueError, match="unknown statistic 'grams'"):
        calibration.walk(model, tokens, print, statistics=("grams",))
    with pytest.raises(ValueError, match="chunk"):
        calibration.walk(model, tokens, print, chunk=0)
    with pytest.raises(ValueError, match="not kept in chunks"):
        calibration.walk(model, tokens, print, chunk=1, statistics=("samples",))
    with pytest.raises(ValueError, match="shape"):
        calibration.walk(model, tokens[0], print)
    with pytest.raises(ValueError, match="statistic of this walk"):
        calibration.walk(model, tokens, lambda group: group.gram())
    model.config.num_hidden_layers = 1
    for chunk in (None, 2):
        with pytest.raises(ValueError, match=r"blocks \[1\] did not run"):
            calibration.walk(model, tokens, lambda group: None, chunk=chunk)
