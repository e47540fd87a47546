"""A variant is its recipe: built once, loaded from the cache, built again when evicted, never stale."""

import os
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import tiny
from hemorrhage import checkpoints, files, modification_data
from hemorrhage.architecture import models
from hemorrhage.corpus import tokens
from hemorrhage.planning import variants


def recipe_of(*steps):
    """The recipe of a variant with every setting, as the workflow hands it on."""
    return variants.expand([list(steps)])[-1].recipe


PRUNE = recipe_of({"magnitude": {"sparsity": 0.5}})


@pytest.fixture
def data(tmp_path, monkeypatch):
    """Data of a model whose base folder is there; the cache lies in the temporary folder."""
    monkeypatch.setenv("HEMORRHAGE_CACHE", str(tmp_path / "cache"))
    models.prepare(tiny.write_folder(tmp_path / "source"), tmp_path / "model" / "base", source="path:source")
    ids = tiny.tokens().numpy().astype(np.int32)
    windows = tokens.TokenSet(ids, ids > 0, np.ones(len(ids), dtype=np.int64), ["a"] * len(ids), {})
    windows.meta["hash"] = windows.hash
    windows.save(tmp_path / "model" / "tokens" / "calibration.default.npz")
    return modification_data.ModificationData(tmp_path / "model")


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "method.py"
    path.write_text("a = 1\n")
    return path


def built(data, source, tmp_path, recipe=PRUNE):
    entry = checkpoints.key(recipe, data, [source], {"torch": "1"})
    record = checkpoints.build(recipe, data, entry)
    files.write_json(tmp_path / "modification.json", record)
    return tmp_path / "modification.json", record


def test_opened_variant_is_the_built_one(data, source, tmp_path):
    path, record = built(data, source, tmp_path)
    model, opened = checkpoints.open_variant(path, data)
    zeros = sum(int((p == 0).sum()) for name, p in model.named_parameters() if "layers" in name and p.dim() == 2)
    total = sum(p.numel() for name, p in model.named_parameters() if "layers" in name and p.dim() == 2)
    assert zeros * 2 == total
    assert opened["fingerprint"] == record["fingerprint"] == checkpoints.fingerprint(model)


def test_evicted_variant_is_built_again_with_equal_weights(data, source, tmp_path):
    path, record = built(data, source, tmp_path)
    files.remove(tmp_path / "cache" / "checkpoints" / record["key"])
    model, _ = checkpoints.open_variant(path, data)
    assert checkpoints.fingerprint(model) == record["fingerprint"]


def test_evicted_variant_is_built_again_with_the_threads_that_built_it(data, source, tmp_path, monkeypatch):
    """Sums in another order are other weights: timing a variant on all cores failed where its checkpoint was gone."""
    seen = []
    follow = checkpoints.follow
    monkeypatch.setattr(checkpoints, "follow", lambda *given: seen.append(torch.get_num_threads()) or follow(*given))
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        path, record = built(data, source, tmp_path)
        files.remove(tmp_path / "cache" / "checkpoints" / record["key"])
        torch.set_num_threads(2)
        checkpoints.open_variant(path, data)
        assert seen == [1, 1]
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_edited_source_changes_the_key(data, source):
    before = checkpoints.key(PRUNE, data, [source], {})
    source.write_text("a = 2\n")
    assert checkpoints.key(PRUNE, data, [source], {}) != before


def test_key_depends_on_recipe_versions_and_base_but_not_on_paths(data, source, tmp_path):
    key = checkpoints.key(PRUNE, data, [source], {"torch": "1"})
    moved = tmp_path / "elsewhere.py"
    moved.write_bytes(source.read_bytes())
    assert checkpoints.key(PRUNE, data, [moved], {"torch": "1"}) == key
    assert checkpoints.key(PRUNE, data, [source], {"torch": "2"}) != key
    other = recipe_of({"magnitude": {"sparsity": 0.4}})
    assert checkpoints.key(other, data, [source], {"torch": "1"}) != key
    files.write_json(data.base / "hemorrhage.json", {"fingerprint": "another"})
    assert checkpoints.key(PRUNE, data, [source], {"torch": "1"}) != key


def test_other_weights_in_the_cache_are_refused(data, source, tmp_path):
    path, record = built(data, source, tmp_path)
    record["fingerprint"] = "0" * 32
    files.write_json(path, record)
    with pytest.raises(ValueError, match="fingerprint"):
        checkpoints.open_variant(path, data)


def test_cache_keeps_to_its_limit(data, source, tmp_path, monkeypatch):
    monkeypatch.setenv("HEMORRHAGE_CACHE_GB", "0.0000001")
    _, first = built(data, source, tmp_path)
    _, second = built(data, source, tmp_path, recipe_of({"magnitude": {"sparsity": 0.25}}))
    kept = [path.name for path in (tmp_path / "cache" / "checkpoints").iterdir() if path.is_dir()]
    assert kept == [second["key"]] != [first["key"]]


def test_cache_keeps_to_its_limit_when_an_evicted_variant_is_built_again(data, source, tmp_path, monkeypatch):
    monkeypatch.setenv("HEMORRHAGE_CACHE_GB", "0.0000001")
    _, first = built(data, source, tmp_path)
    files.write_json(tmp_path / "first.json", first)
    built(data, source, tmp_path, recipe_of({"magnitude": {"sparsity": 0.25}}))
    checkpoints.open_variant(tmp_path / "first.json", data)
    kept = [path.name for path in (tmp_path / "cache" / "checkpoints").iterdir() if path.is_dir()]
    assert kept == [first["key"]]


def test_entry_that_another_job_removes_meanwhile_does_not_fail_a_build(data, source, tmp_path, monkeypatch):
    _, first = built(data, source, tmp_path)
    gone, listed = tmp_path / "cache" / "checkpoints" / first["key"], Path.iterdir

    def listed_and_removed(folder):
        found = list(listed(folder))
        if folder == gone:
            files.remove(gone)
        return iter(found)

    monkeypatch.setattr(Path, "iterdir", listed_and_removed)
    _, second = built(data, source, tmp_path, recipe_of({"magnitude": {"sparsity": 0.25}}))
    assert not gone.exists()
    assert (gone.parent / second["key"]).is_dir()


def test_what_a_killed_job_left_half_saved_goes_after_a_day(data, source, tmp_path):
    old, young = (tmp_path / "cache" / "checkpoints" / f".part-{name}-entry" for name in ("old", "young"))
    for part in (old, young):
        part.mkdir(parents=True)
        (part / "model.safetensors").write_bytes(b"half")
    os.utime(old, (0, time.time() - 25 * 60 * 60))
    built(data, source, tmp_path)
    assert not old.exists()
    assert young.exists()


def test_layer_maps_of_chained_steps_compose(data, source, tmp_path):
    recipe = recipe_of(
        {"drop_blocks": {"blocks": 1, "where": "first"}}, {"repeat_blocks": {"blocks": 1, "where": "last"}}
    )
    _, record = built(data, source, tmp_path, recipe)
    assert record["layer_map"] == [1, 2, 2]


def test_attachments_come_back_with_the_checkpoint(data, source, tmp_path):
    recipe = recipe_of({"dynamic_activations": {"bits": 4}})
    path, record = built(data, source, tmp_path, recipe)
    model, _ = checkpoints.open_variant(path, data)
    base = models.load(data.base, "float32", "cpu")
    ids = tiny.tokens()
    assert len(record["attachments"]) > 0
    with torch.inference_mode():
        assert not torch.equal(model(ids).logits, base(ids).logits)


def test_step_with_its_own_weights_must_be_first(data, source, tmp_path):
    recipe = [*PRUNE, *recipe_of({"given": {"path": str(data.base)}})]
    with pytest.raises(ValueError, match=r"given: .* must be the first step"):
        checkpoints.follow(recipe, data)


def test_given_base_is_the_reference(data, source, tmp_path):
    _, record = built(data, source, tmp_path, recipe_of({"given": {"path": f"path:{data.base}"}}))
    _, identity = built(data, source, tmp_path, recipe_of("identity"))
    assert record["fingerprint"] == identity["fingerprint"]
