"""What every modification must hold, on every supported architecture: one test file for all plug-ins.

A new method is covered by being a file; nothing here names one.
"""

import dataclasses
import functools
import math
import subprocess
import sys

import pytest
import torch

import tiny
from hemorrhage import checkpoints, plugins
from hemorrhage.architecture import attachments, blocks, norms, routers, targets
from hemorrhage.planning import refusals
from tiny_data import TinyData

METHODS = plugins.found("modifications")
PROMPT, NEW_TOKENS = 6, 12
SPARSITIES = (0.1, 0.33, 0.5, 0.75, 1.0)

every_method = pytest.mark.parametrize("method", METHODS)


@functools.cache
def changed(method, architecture, **values):
    """(changed model, what was achieved, refusal); the model must not be changed by a test."""
    module = METHODS[method].module
    if hasattr(module, "load"):
        pytest.skip("it brings its own weights: workflow_tests/unit/test_given.py")
    skip_without_packages(method)
    model, data = tiny.build(architecture), TinyData(architecture)
    settings = METHODS[method].settings(values or module.EXAMPLE)
    try:
        return model, module.apply(model, settings, data), None
    except ValueError as error:
        return None, None, str(error)


def skip_without_packages(method):
    absent = refusals.missing(METHODS[method])
    if absent:
        pytest.skip(f"{' and '.join(absent)} not installed: `make peers` installs the libraries of deployment")


def example(method, architecture):
    """The model after EXAMPLE. A method may refuse an architecture only for a target whose input no call shows."""
    model, achieved, refusal = changed(method, architecture)
    if refusal is None:
        return model, achieved
    if refusal == unsuited(method, architecture):
        pytest.skip(refusal)
    hidden = [target.name for target in targets.find(tiny.build(architecture)) if not target.called]
    assert any(name in refusal for name in hidden), refusal
    pytest.skip(refusal)


def unsuited(method, architecture):
    """The sentence with which a method says beforehand that it does not serve an architecture."""
    reason = getattr(METHODS[method].module, "unsuited", lambda model: None)(tiny.build(architecture))
    assert reason is None or reason.startswith(type(tiny.build(architecture)).__name__)
    return reason


def logits(model):
    with torch.no_grad():
        return model(tiny.tokens(3, 20, seed=5), use_cache=False).logits


@every_method
def test_it_defines_what_a_modification_defines(method):
    module = METHODS[method].module
    fields = [field.name for field in dataclasses.fields(module.Settings)]
    assert module.__doc__
    assert module.Settings.__doc__
    assert module.apply.__doc__
    assert module.NEEDS.issubset({"calibration", "gradients", "fit_reference"})
    assert module.AXIS is None or module.AXIS.setting in fields
    assert set(module.REPAIRS) <= {"*", *METHODS}
    assert "calibration" in fields or not module.NEEDS & {"calibration", "gradients"}
    for values in (module.EXAMPLE, module.NEUTRAL):
        if values is not None:
            METHODS[method].settings(values)
    if module.AXIS and module.AXIS.harmless is not None:
        assert dict(module.NEUTRAL) == {module.AXIS.setting: module.AXIS.harmless}
    with pytest.raises(dataclasses.FrozenInstanceError):
        METHODS[method].settings(module.EXAMPLE).anything = 1


def test_no_modification_imports_torch_at_its_top():
    code = (
        "import sys; from hemorrhage import plugins; [p.module for p in plugins.found('modifications').values()]; "
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": str(plugins.PACKAGE.parent)})


@every_method
def test_bad_settings_are_refused_by_name(method):
    module = METHODS[method].module
    with pytest.raises(ValueError, match=f"{method}: unknown setting 'nonsense'"):
        METHODS[method].settings({**module.EXAMPLE, "nonsense": 1})
    for field in dataclasses.fields(module.Settings):
        if any(word in str(field.type) for word in ("int", "float", "bool")):
            for value in ("nonsense", math.nan, -1):
                with pytest.raises(ValueError, match=f"{method}: {field.name}"):
                    METHODS[method].settings({**module.EXAMPLE, field.name: value})


def test_every_matrix_inside_the_blocks_is_accounted_for(architecture):
    model = tiny.build(architecture)
    path, layers = targets.blocks(model)
    inside = {f"{path}.{name}" for name, parameter in layers.named_parameters() if parameter.dim() in (2, 3)}
    account = targets.account(model)
    assert set(account) == inside
    assert targets.UNKNOWN not in account.values()
    assert "target" in account.values()


@every_method
def test_neutral_settings_leave_the_logits_bit_equal(method, architecture):
    module = METHODS[method].module
    if module.NEUTRAL is None:
        pytest.skip("no setting is neutral")
    model, _, refusal = changed(method, architecture, **module.NEUTRAL)
    assert refusal == unsuited(method, architecture)
    if refusal:
        pytest.skip(refusal)
    tolerance = getattr(module, "TOLERANCE", 0)
    torch.testing.assert_close(logits(model), logits(tiny.build(architecture)), rtol=0, atol=tolerance)


@every_method
def test_the_example_changes_every_target_and_only_targets(method, architecture):
    model, achieved = example(method, architecture)
    before = tiny.build(architecture)
    old = dict(before.named_parameters())
    changes = getattr(METHODS[method].module, "CHANGES", "targets")
    if changes == "shapes":
        return  # its own tests say what the new weights are
    if changes == "widths":
        assert_only_widths_changed(model, before)
        return
    if achieved.get("layer_map", list(range(3))) != list(range(3)):
        assert_blocks_are_copies(model, before, achieved["layer_map"], changes == "copies")
        return
    assert set(dict(model.named_parameters())) == set(old)
    differing = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, old[name])}
    if not differing:
        return
    allowed = {
        "norms": {f"{norm.name}.weight" for norm in norms.find_norms(before)},
        "routers": {f"{mixture.name}.weight" for mixture in routers.find(before)},
        "config": set(),
    }
    if changes in allowed:
        assert differing == allowed[changes]
        return
    found = targets.find(model)
    assert differing == {target.name.split("[")[0] for target in found}
    for new, original in zip(found, targets.find(before), strict=True):
        assert not torch.equal(new.weight, original.weight), new.name


def assert_blocks_are_copies(model, before, layer_map, only_first=False):
    """Block i is old block layer_map[i] bit for bit (``only_first``: its first run), and the rest is as it was."""
    (path, new), (_, old) = targets.blocks(model), targets.blocks(before)
    assert len(new) == len(layer_map) == model.config.num_hidden_layers
    for place, (block, source) in enumerate(zip(new, layer_map, strict=True)):
        if only_first and (source is None or source in layer_map[:place]):
            continue
        theirs = dict(old[source].named_parameters())
        assert all(torch.equal(parameter, theirs[name]) for name, parameter in block.named_parameters())
    outside = {name: p for name, p in before.named_parameters() if not name.startswith(path)}
    assert all(torch.equal(p, outside[name]) for name, p in model.named_parameters() if not name.startswith(path))


def assert_only_widths_changed(model, before):
    """Matrices have only rows and columns that they had, some are narrower, and nothing else is touched."""
    found, originals = targets.find(model), {target.name: target for target in targets.find(before)}
    narrower = 0
    for new in found:
        old = originals[new.name].weight
        narrower += new.weight.shape != old.shape
        for kept, source in ((new.weight, old), (new.weight.T, old.T)):
            if kept.shape[1] == source.shape[1]:
                assert {tuple(row) for row in kept.tolist()} <= {tuple(row) for row in source.tolist()}, new.name
    assert narrower
    assert sum(p.numel() for p in model.parameters()) < sum(p.numel() for p in before.parameters())
    inside, old = tuple(f"{target.module_name}." for target in found), dict(before.named_parameters())
    outside = {name: p for name, p in model.named_parameters() if not name.startswith(inside)}
    assert set(outside) == {name for name in old if not name.startswith(inside)}
    assert all(torch.equal(parameter, old[name]) for name, parameter in outside.items())


@pytest.mark.parametrize(
    "method", [name for name, plugin in METHODS.items() if getattr(plugin.module, "LEAVES_REFERENCE", False)]
)
def test_what_leaves_the_reference_as_it_is_changes_no_logit_of_it(method, architecture):
    model, _ = example(method, architecture)
    assert torch.equal(logits(model), logits(tiny.build(architecture)))


@every_method
def test_the_example_does_something(method, architecture):
    model, _ = example(method, architecture)
    module = METHODS[method].module
    if module.EXAMPLE == module.NEUTRAL or module.REPAIRS == ("*",):
        return  # the identity, and what may find that nothing is to be repaired
    if getattr(module, "LOSSLESS", False):
        assert torch.equal(logits(model), logits(tiny.build(architecture)))
        return
    assert not torch.equal(logits(model), logits(tiny.build(architecture)))


@pytest.mark.parametrize(
    "method",
    [name for name, plugin in METHODS.items() if plugin.module.AXIS and plugin.module.AXIS.setting == "sparsity"],
)
@pytest.mark.parametrize("sparsity", SPARSITIES)
def test_achieved_sparsity_is_exact_in_every_comparison_group(method, architecture, sparsity):
    model, achieved, refusal = changed(method, architecture, sparsity=sparsity)
    assert refusal is None
    pruned = 0
    for target in targets.find(model):
        zero = target.weight == 0
        by_row = math.floor(sparsity * target.in_features + 0.5)
        whole = math.floor(sparsity * zero.numel() + 0.5)
        assert (zero.sum(1) == by_row).all() or int(zero.sum()) == whole, target.name
        pruned += int(zero.sum())
    assert achieved["pruned"] == pruned
    assert achieved["sparsity"] == pruned / achieved["weights"]


@pytest.mark.parametrize(
    "method",
    [
        name
        for name, plugin in METHODS.items()
        if "pattern" in {field.name for field in dataclasses.fields(plugin.module.Settings)}
    ],
)
@pytest.mark.parametrize("pattern", ["2:4", "1:4", "3:8"])
def test_a_pattern_keeps_n_of_every_m(method, architecture, pattern):
    model, achieved, refusal = changed(method, architecture, pattern=pattern)
    n, m = (int(part) for part in pattern.split(":"))
    undivided = [target.name for target in targets.find(tiny.build(architecture)) if target.in_features % m]
    if undivided:
        assert refusal is not None
        assert "pattern" in refusal
        assert undivided[0] in refusal
        return
    for target in targets.find(model):
        assert ((target.weight.reshape(-1, m) != 0).sum(1) == n).all(), target.name
    assert achieved["sparsity"] == pytest.approx(1 - n / m)


@pytest.mark.parametrize(
    "method",
    [name for name, plugin in METHODS.items() if plugin.module.AXIS and plugin.module.AXIS.setting == "blocks"],
)
@pytest.mark.parametrize("number", [1, 2])
def test_achieved_number_of_blocks_is_the_one_asked_for(method, architecture, number):
    model, achieved, refusal = changed(method, architecture, blocks=number)
    assert refusal is None
    assert abs(len(targets.blocks(model)[1]) - 3) == number
    assert len(achieved["layer_map"]) == len(targets.blocks(model)[1])


@every_method
def test_the_same_seed_gives_the_same_fingerprint(method, architecture):
    model, achieved = example(method, architecture)
    changed_again = changed.__wrapped__(method, architecture)
    assert checkpoints.fingerprint(changed_again[0]) == checkpoints.fingerprint(model)
    assert changed_again[1] == achieved


@every_method
def test_saved_and_loaded_it_gives_the_same_logits(method, architecture, tmp_path):
    model, _ = example(method, architecture)
    checkpoints.save(model, tmp_path / "checkpoint", {"attachments": attachments.attached(model)})
    loaded = checkpoints.load(tmp_path / "checkpoint", "float32", "cpu")
    assert torch.equal(logits(loaded), logits(model))
    assert attachments.attached(loaded) == attachments.attached(model)
    assert checkpoints.fingerprint(loaded) == checkpoints.fingerprint(model)


@every_method
def test_generation_with_a_cache_equals_generation_without(method, architecture):
    model, _ = example(method, architecture)
    prompt = tiny.tokens(2, PROMPT, seed=3)
    texts = [
        model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=NEW_TOKENS,
            do_sample=False,
            use_cache=cached,
            eos_token_id=None,
            pad_token_id=0,
        )
        for cached in (True, False)
    ]
    assert torch.equal(*texts)


@every_method
def test_every_block_runs(method, architecture):
    model, _ = example(method, architecture)
    assert blocks.ran(model) == set(range(len(targets.blocks(model)[1])))


@every_method
def test_weights_that_are_not_finite_never_leave_silently(method, tmp_path):
    if hasattr(METHODS[method].module, "load"):
        pytest.skip("it brings its own weights: workflow_tests/unit/test_given.py")
    skip_without_packages(method)
    broken = tiny.build("llama")
    targets.find(broken)[3].weight[0, 0] = math.nan
    broken.save_pretrained(tmp_path / "base")
    data = TinyData("llama")
    data.base = tmp_path / "base"
    if unsuited(method, "llama"):
        pytest.skip(unsuited(method, "llama"))
    recipe = [{"method": method, "settings": METHODS[method].module.EXAMPLE}]
    with pytest.raises(ValueError, match="finite"):
        checkpoints.follow(recipe, data)
