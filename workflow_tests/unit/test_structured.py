"""Removing channels and heads: the scores are the formulas, the rest of the model is what it was, the config fits."""

import pytest
import torch
import transformers as hf

import tiny
from hemorrhage import checkpoints, plugins
from hemorrhage.activations import calibration
from hemorrhage.architecture import coupling, targets, widths
from hemorrhage.methods import fluctuation
from tiny_data import TinyData

SERVED = ("llama", "qwen3", "gemma2")


def applied(method, architecture="llama", **settings):
    plugin = plugins.get("modifications", method)
    model = tiny.build(architecture)
    return model, plugin.module.apply(model, plugin.settings(settings), TinyData(architecture))


def logits(model):
    with torch.no_grad():
        return model(tiny.tokens(3, 20, seed=5), use_cache=False).logits


def silenced(structures, removed, means):
    """Set the columns of removed units to zero, after their mean went into the bias where there is one."""
    for structure, units in zip(structures, removed, strict=True):
        gone = structure.columns[units].flatten()
        weight = structure.reader.weight
        if means is not None and structure.reader.module.bias is not None:
            structure.reader.module.bias.data += weight[:, gone] @ means[structure.reader.name][gone]
        structure.reader.write(weight.index_fill(1, gone, 0))


@pytest.mark.parametrize("architecture", SERVED)
def test_a_cut_is_the_same_function_as_columns_of_zeros(architecture):
    model, other = tiny.build(architecture), tiny.build(architecture)
    structures = coupling.find(model)
    removed = [[1] if structure.kind == "heads" else list(range(3, 40)) for structure in structures]
    silenced(coupling.find(other), removed, None)
    widths.cut(model, structures, removed)
    torch.testing.assert_close(logits(model), logits(other), rtol=1e-4, atol=1e-4)
    config = model.config
    assert (config.num_key_value_heads, config.num_attention_heads, config.intermediate_size) == (1, 2, 64 - 37)


@pytest.mark.parametrize("architecture", ["gpt2", "opt", "gpt_neox"])
def test_channels_are_cut_where_heads_cannot_be(architecture, tmp_path):
    model, achieved = applied("flap", architecture, ratio=0.3, structures="channels")
    assert achieved["uncompensated"] == []
    checkpoints.save(model, tmp_path / "cut", {"attachments": []})
    assert torch.equal(logits(checkpoints.load(tmp_path / "cut", "float32", "cpu")), logits(model))
    with pytest.raises(ValueError, match="heads"):
        applied("flap", architecture, ratio=0.5)


@pytest.mark.parametrize("architecture", SERVED)
def test_both_kinds_are_cut_and_saved(architecture, tmp_path):
    model, achieved = applied("flap", architecture, ratio=0.5)
    assert achieved["ratio"] == pytest.approx(0.5, abs=0.01)
    assert achieved["parameters_after"] == sum(p.numel() for p in model.parameters())
    assert sum(t.weight.numel() for t in targets.find(model)) == achieved["weights_after"]
    checkpoints.save(model, tmp_path / "cut", {"attachments": []})
    assert torch.equal(logits(checkpoints.load(tmp_path / "cut", "float32", "cpu")), logits(model))


def test_fluctuation_is_the_formula_written_out():
    torch.manual_seed(0)
    weight, inputs = torch.randn(8, 12), torch.randn(50, 12) + 3
    columns = torch.arange(12).reshape(4, 3)
    by_channel = [float(inputs[:, j].var(correction=0) * weight[:, j].norm() ** 2) for j in range(12)]
    for squared in (False, True):
        expected = [sum(by_channel[j] ** (2 if squared else 1) for j in unit) for unit in columns.tolist()]
        found = fluctuation.scores(weight, inputs.mean(0), inputs.square().mean(0), columns, squared)
        assert found.tolist() == pytest.approx(expected, rel=1e-4)


def test_flap_removes_the_least_fluctuation_and_puts_its_mean_into_the_bias():
    model, achieved = applied("flap", ratio=0.3, structures="channels")
    other = tiny.build("llama")
    structures = coupling.find(other, ("channels",))
    widths.biased(other, [structure.reader for structure in structures])
    removed, means = [], {}

    def visit(group):
        for place, structure in enumerate(structures):
            if structure.reader.name in [target.name for target in group.targets]:
                variance = group.square_mean() - group.mean() ** 2
                score = variance * structure.reader.weight.square().sum(0)
                removed.append(sorted(score.argsort()[: len(achieved["removed"]["channels"][place])].tolist()))
                means[structure.reader.name] = group.mean()
                silenced([structure], removed[-1:], means)

    calibration.walk(other, TinyData().tokens("default"), visit, statistics=("mean", "square_mean"))
    assert achieved["removed"]["channels"] == removed
    torch.testing.assert_close(logits(model), logits(other), rtol=1e-4, atol=1e-4)


def output_of(module, model):
    """What a module of a model gives on the calibration tokens."""
    seen = []
    handle = module.register_forward_hook(lambda module, inputs, output: seen.append(output))
    with torch.no_grad():
        model(TinyData().tokens("default"), use_cache=False)
    handle.remove()
    return seen[0]


def test_the_bias_lowers_the_error_of_what_the_reader_gives():
    whole, (cut, _) = tiny.build("llama"), applied("flap", ratio=0.5, structures="channels")
    first = coupling.find(whole, ("channels",))[0].reader  # in the first block the inputs are the same
    reader = next(target.module for target in targets.find(cut) if target.name == first.name)
    expected, compensated = output_of(first.module, whole), output_of(reader, cut)
    reader.bias.data.zero_()
    plain = output_of(reader, cut)
    assert (compensated - expected).square().mean() < (plain - expected).square().mean()


@pytest.mark.parametrize("architecture", SERVED)
def test_taylor_is_the_sum_over_all_coupled_weights(architecture):
    _, achieved = applied("taylor_structured", architecture, ratio=0.5)
    gradients = TinyData(architecture).gradients("default", "l1")
    for kind in ("heads", "channels"):
        structures = coupling.find(tiny.build(architecture), (kind,))
        for structure, gone in zip(structures, achieved["removed"][kind], strict=True):
            scores = []
            for unit in range(structure.units):
                felt = sum(
                    float((maker.weight.abs() * gradients[maker.name])[rows[unit]].sum())
                    for maker, rows in structure.makers
                )
                reader = structure.reader
                felt += float((reader.weight.abs() * gradients[reader.name])[:, structure.columns[unit]].sum())
                scores.append(felt)
            assert gone == sorted(sorted(range(len(scores)), key=scores.__getitem__)[: len(gone)])


def test_a_group_of_heads_goes_as_a_whole():
    structure = coupling.find(tiny.build("llama"), ("heads",))[0]
    query, key, value = structure.makers
    assert query[1].tolist() == [list(range(16)), list(range(16, 32))]
    assert key[1].tolist() == value[1].tolist() == [list(range(8)), list(range(8, 16))]
    assert structure.columns.tolist() == query[1].tolist()


@pytest.mark.parametrize(
    ("ratio", "numbers"), [(0.5, {"heads": 1, "channels": 32}), (0.3, {"heads": 0, "channels": 29})]
)
def test_channels_make_up_for_what_whole_heads_cannot_say(ratio, numbers):
    assert coupling.plan(tiny.build("llama"), ratio, coupling.KINDS) == numbers


@pytest.mark.parametrize(("multiple", "left"), [(1, 35), (8, 32), (16, 32), (64, 64)])
def test_the_nearest_multiple_of_channels_stays(multiple, left):
    """The model has 64 channels; 35 would be exact, and with 64 in front of them nothing can go."""
    numbers = coupling.plan(tiny.build("llama"), 0.3, coupling.KINDS, multiple)
    assert 64 - numbers["channels"] == left


@pytest.mark.parametrize("method", ["flap", "taylor_structured"])
def test_a_quantizer_with_groups_follows_a_cut_to_a_multiple_of_them(method):
    model, _ = applied(method, ratio=0.3, structures="channels", multiple=16)
    plugin = plugins.get("modifications", "rtn")
    plugin.module.apply(model, plugin.settings({"bits": 8, "group": 16}), TinyData())
    with pytest.raises(ValueError, match="group: 16 does not divide the width"):
        plugin.module.apply(
            applied(method, ratio=0.3, structures="channels")[0], plugin.settings({"bits": 8, "group": 16}), TinyData()
        )


def test_too_much_is_refused():
    with pytest.raises(ValueError, match=r"ratio: 0\.9 of a block's weights would take"):
        applied("flap", ratio=0.9, structures="channels")


def test_quantizers_by_channel_come_after_the_cut():
    plugin = plugins.get("modifications", "smoothquant")
    model = tiny.build("llama")
    plugin.module.apply(model, plugin.settings(plugin.module.EXAMPLE), TinyData())
    structures = coupling.find(model)
    with pytest.raises(ValueError, match="cut widths first"):
        widths.require_possible(model, structures, {"heads": 1})


def test_no_more_heads_go_than_leave_a_number_that_the_config_accepts(tmp_path):
    config = hf.LlamaConfig(
        vocab_size=tiny.VOCABULARY,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=8,
        num_key_value_heads=8,
    )
    model = hf.LlamaForCausalLM(config).eval()
    numbers = coupling.plan(model, 0.4, coupling.KINDS)
    assert numbers["heads"] == 0  # 5 heads would be left, and 6 and 7 divide 64 no better
    assert coupling.plan(model, 0.5, coupling.KINDS)["heads"] == 4
    plugin = plugins.get("modifications", "flap")
    achieved = plugin.module.apply(model, plugin.settings({"ratio": 0.4}), TinyData())
    assert achieved["ratio"] == pytest.approx(0.4, abs=0.01)
    checkpoints.save(model, tmp_path / "cut", {"attachments": []})
    loaded = checkpoints.load(tmp_path / "cut", "float32", "cpu")
    assert loaded.config.intermediate_size == 96 - numbers["channels"]
