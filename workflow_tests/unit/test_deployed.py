"""Formats of deployment on a model that is wide enough for them: the file is smaller, and it is what is measured."""

import pytest
import torch
import transformers as hf

import tiny
from hemorrhage import checkpoints, files, plugins
from hemorrhage.architecture import packed, targets
from hemorrhage.methods import packing, tensors
from hemorrhage.planning import refusals
from tiny_data import TinyData

WIDTH, GROUP = 96, 32
# Settings, neighbours that share a grid (None: a row), greatest number of values in it, share of the dense bytes.
FORMATS = {
    "bitsandbytes_nf4": ({}, 64, 16, 0.17),
    "bitsandbytes_nf4 fp4": ({"table": "fp4"}, 64, 16, 0.17),
    "bitsandbytes_nf4 double": ({"double_quantization": True}, 64, 16, 0.16),
    "bitsandbytes_int8": ({}, None, 255, 0.28),
    "torchao_int8": ({}, None, 256, 0.28),
    "torchao_int4": ({"group": GROUP}, GROUP, 16, 0.30),
    "torchao_int4 asymmetric": ({"group": GROUP, "symmetric": False}, GROUP, 16, 0.30),
    "compressed_tensors 4": ({"bits": 4, "group": GROUP}, GROUP, 16, 0.17),
    "compressed_tensors asymmetric": ({"bits": 4, "group": GROUP, "symmetric": False}, GROUP, 16, 0.18),
    "compressed_tensors 3": ({"bits": 3, "group": GROUP}, GROUP, 8, 0.15),
    "compressed_tensors channel": ({"bits": 8, "group": None}, None, 256, 0.28),
}
every_format = pytest.mark.parametrize("name", FORMATS)


def build():
    """A Llama with rows of 96 and 192 weights: whole groups of 32, and no whole blocks of 64."""
    config = tiny.CONFIGS["llama"](2)
    config.hidden_size, config.intermediate_size, config.num_key_value_heads, config.head_dim = WIDTH, 192, 4, 24
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return hf.AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()


def applied(name, model=None):
    """(model, what was achieved)."""
    method = name.split()[0]
    plugin = plugins.get("modifications", method)
    if refusals.missing(plugin):
        pytest.skip(f"{method}: its library is not installed")
    model = model or build()
    return model, plugin.module.apply(model, plugin.settings(FORMATS[name][0]), TinyData())


@every_format
def test_the_file_is_smaller_and_the_weights_lie_on_its_grid(name):
    _, group, values, share = FORMATS[name]
    model, achieved = applied(name)
    before = dict(build().named_parameters())
    found = targets.find(model)
    differing = {key for key, parameter in model.named_parameters() if not torch.equal(parameter, before[key])}
    assert differing == {target.name for target in found}
    for target in found:
        groups = target.weight.reshape(-1, group or target.in_features)
        assert max(len(row.unique()) for row in groups) <= values, target.name
        error, energy = tensors.relative_error(before[target.name], target.weight)
        assert (error / energy) ** 0.5 < {255: 0.01, 256: 0.01, 16: 0.13, 8: 0.25}[values], target.name
    assert achieved["bytes_on_disk"] < achieved["bytes_before"]
    assert achieved["bits_per_weight"] < 32 * share
    assert "bits_per_parameter" not in achieved


@every_format
def test_the_same_model_gives_the_same_file(name):
    (model, achieved), (again, achieved_again) = applied(name), applied(name)
    assert checkpoints.fingerprint(model) == checkpoints.fingerprint(again)
    assert achieved == achieved_again


@pytest.mark.parametrize(
    ("name", "method", "settings"),
    [
        ("bitsandbytes_nf4", "nf4", {"group": 64}),
        ("bitsandbytes_nf4 fp4", "fp4", {"group": 64}),
        ("bitsandbytes_int8", "int8", {}),
        ("compressed_tensors asymmetric", "rtn", {"bits": 4, "group": GROUP}),
    ],
)
def test_it_is_nearer_to_our_own_method_than_to_the_model(name, method, settings):
    model, _ = applied(name)
    own, plugin = build(), plugins.get("modifications", method)
    plugin.module.apply(own, plugin.settings(settings), TinyData())
    for theirs, ours, before in zip(*(targets.find(each) for each in (model, own, build())), strict=True):
        distance, _ = tensors.relative_error(theirs.weight, ours.weight)
        damage, _ = tensors.relative_error(theirs.weight, before.weight)
        assert distance < 0.3 * damage, theirs.name


def test_symmetric_grids_of_torchao_reach_half_a_step_further_down_than_up():
    """Ours is centred: its scale is the largest weight over 127, theirs that over 127.5."""
    model, _ = applied("torchao_int8")
    for target, before in zip(targets.find(model), targets.find(build()), strict=True):
        scale = before.weight.abs().amax(1, keepdim=True) / 127.5
        expected = (before.weight / scale).round().clamp(-128, 127) * scale
        torch.testing.assert_close(target.weight, expected, rtol=0, atol=float(1.01 * scale.max()))
        assert (target.weight - expected).abs().mean() < 0.01 * scale.mean()  # ties may fall either way


def test_four_bits_of_torchao_and_of_compressed_tensors_are_the_same_weights():
    one, other = applied("torchao_int4")[0], applied("compressed_tensors 4")[0]
    for theirs, ours in zip(targets.find(one), targets.find(other), strict=True):
        differing = (theirs.weight - ours.weight).abs() > 1e-6
        assert differing.float().mean() < 1 / GROUP, theirs.name  # the largest of a group is a tie: 7.5 steps


@pytest.fixture
def data(tmp_path):
    """Data of a run whose reference is the wide model."""
    build().save_pretrained(tmp_path / "base")
    tiny.tokenizer().save_pretrained(tmp_path / "base")
    result = TinyData()
    result.base = tmp_path / "base"
    return result


def recipe(*steps):
    return [{"method": method, "settings": settings} for method, settings in steps]


NF4 = ("bitsandbytes_nf4", {"table": "nf4", "double_quantization": False})
INT4 = ("compressed_tensors", {"bits": 4, "group": GROUP, "symmetric": True})


@pytest.mark.parametrize(
    "steps",
    [[INT4], [("magnitude", {"sparsity": 0.5}), INT4], [NF4, INT4], [("dynamic_activations", {"bits": 8}), INT4]],
    ids=["alone", "after pruning", "a second format", "with attachments"],
)
def test_the_packed_file_that_is_kept_is_the_one_that_was_measured(steps, data, tmp_path):
    pytest.importorskip("compressed_tensors")
    pytest.importorskip("bitsandbytes")
    _, record = checkpoints.follow(recipe(*steps), data)
    assert checkpoints.pack(record, data, tmp_path / "packed")
    assert packed.method_of(files.read_json(tmp_path / "packed" / "config.json")) == "compressed-tensors"
    assert packing.weight_bytes(tmp_path / "packed") == record["achieved"][-1]["bytes_on_disk"]


def test_a_variant_that_ends_in_another_step_has_no_packed_file(data, tmp_path):
    pytest.importorskip("compressed_tensors")
    _, record = checkpoints.follow(recipe(INT4, ("magnitude", {"sparsity": 0.5})), data)
    assert not checkpoints.pack(record, data, tmp_path / "packed")
    assert not (tmp_path / "packed").exists()


def test_a_packed_file_of_other_weights_is_refused(data, tmp_path):
    pytest.importorskip("compressed_tensors")
    _, record = checkpoints.follow(recipe(INT4), data)
    with pytest.raises(ValueError, match="other weights than those that were measured"):
        checkpoints.pack({**record, "fingerprint": "0"}, data, tmp_path / "packed")


def test_a_file_that_changed_more_than_targets_is_refused():
    def pack(folder):
        other = build()
        other.model.norm.weight.data *= 2
        plugin = plugins.get("modifications", "bitsandbytes_int8")
        plugin.module.pack(other, plugin.settings({}), TinyData(), folder)

    pytest.importorskip("bitsandbytes")
    with pytest.raises(ValueError, match=r"norm.weight.*only targets may change"):
        packing.through_file(build(), TinyData(), pack, None)


def test_a_missing_library_is_named_with_the_way_to_install_it(monkeypatch):
    monkeypatch.setattr(refusals, "_is_installed", lambda package: package != "gptqmodel")
    with pytest.raises(ValueError, match=r"gptqmodel_gptq works through gptqmodel, not installed here.*make peers"):
        refusals.check_packages("v", [{"method": "gptqmodel_gptq", "settings": {}}])


@pytest.mark.parametrize(
    ("method", "settings", "sentence"),
    [
        ("gptqmodel_gptq", {"group": 128}, "group: 128 does not divide the width 576"),
        ("optimum_gptq", {"group": 128}, "group: 128 does not divide the width 576"),
        ("torchao_int4", {"group": 128}, "group: 128 does not divide the width 576"),
        ("compressed_tensors", {"group": 128}, "group: 128 does not divide the width 576"),
    ],
)
def test_a_group_that_does_not_divide_a_width_is_refused_by_the_config(method, settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        refusals.check_recipe("v", recipe((method, settings)), {"hidden_size": 576, "intermediate_size": 1536})


def test_a_width_that_gptq_files_cannot_pack_is_refused_by_the_config():
    with pytest.raises(ValueError, match="hidden_size: 100 is not a multiple of 32"):
        refusals.check_recipe("v", recipe(("gptqmodel_gptq", {"group": None})), {"hidden_size": 100})


@pytest.mark.parametrize(("setting", "value"), [("bits", 5), ("group", 48)])
def test_gptq_files_have_widths_and_groups_of_their_own(setting, value):
    with pytest.raises(ValueError, match=f"gptqmodel_gptq: .*{value}"):
        plugins.get("modifications", "gptqmodel_gptq").settings({setting: value})
