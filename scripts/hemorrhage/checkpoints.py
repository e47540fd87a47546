"""A variant is its recipe; its checkpoint is a cache of it.

``build`` follows a recipe and fills the cache; ``open_variant`` loads the entry, or follows the recipe again if the
entry was evicted, and checks the fingerprint either way. The cache lies outside the results, is limited in size
(``HEMORRHAGE_CACHE_GB``, default 20) and drops the entry that was used longest ago. The key holds the recipe, the
digests of the sources, the package versions and the digests of base and data: a key of the recipe alone gave stale
weights after a method was edited.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from hemorrhage import cache, files, plugins
from hemorrhage.architecture import attachments, models, packed
from hemorrhage.modification_data import ModificationData

LOG = logging.getLogger(__name__)
RECORD = "hemorrhage.json"
BYTES_PER_GB = 10**9
LEFTOVER_SECONDS = 24 * 60 * 60


def fingerprint(model: PreTrainedModel) -> str:
    """Return a digest of every parameter, every persistent buffer and every attachment of a model."""
    attached = json.dumps(attachments.attached(model), sort_keys=True)
    return hashlib.blake2b(f"{models.weights_digest(model)} {attached}".encode(), digest_size=16).hexdigest()


def key(recipe: list[dict[str, Any]], data: ModificationData, sources: Iterable[str], versions: dict[str, str]) -> str:
    """Return the cache key of a recipe: what can change the weights, and nothing that cannot (paths, times)."""
    digests = sorted(files.digest(source) for source in sources)
    cause = [recipe, digests, versions, data.digests(recipe)]
    return hashlib.sha256(json.dumps(cause, sort_keys=True).encode()).hexdigest()[:32]


def build(recipe: list[dict[str, Any]], data: ModificationData, entry: str) -> dict[str, Any]:
    """Follow a recipe, fill the cache entry and return the record that ``modification.json`` holds.

    Raises ValueError if a step leaves a weight that is not finite.
    """
    with files.locked(_lock(entry)):
        model, record = follow(recipe, data)
        record["key"] = entry
        record["bytes"] = save(model, _folder(entry), record)
    evict(keep=entry)
    return record


def open_variant(modification: str | os.PathLike, data: ModificationData) -> tuple[PreTrainedModel, dict[str, Any]]:
    """Return (model, record) of the variant whose ``modification.json`` is given.

    Raises ValueError if the weights are not those that were recorded.
    """
    record = files.read_json(modification)
    folder = _folder(record["key"])
    with files.locked(_lock(record["key"])):
        rebuilt = not (folder / RECORD).is_file()
        if rebuilt:
            LOG.info("The checkpoint of %s is no longer cached; its recipe is followed again.", modification)
            with _threads(record["threads"]):
                model, fresh = follow(record["recipe"], data)
            save(model, folder, {**fresh, "key": record["key"]})
        model = load(folder, data.dtype, data.device)
        os.utime(folder)
    if rebuilt:
        evict(keep=record["key"])
    found = fingerprint(model)
    if found != record["fingerprint"]:
        files.remove(folder)
        raise ValueError(
            f"{modification}: the weights have fingerprint {found}, recorded is {record['fingerprint']}; other "
            "software, another device or a changed checkpoint made them. Delete this file and run again."
        )
    return model, record


def follow(recipe: list[dict[str, Any]], data: ModificationData) -> tuple[PreTrainedModel, dict[str, Any]]:
    """Apply the steps of a recipe in order; returns (model, record)."""
    model = _start(recipe, data)
    achieved: list[dict[str, Any]] = []
    layers: list[int | None] = list(range(_depth(model)))
    for step in recipe:
        plugin = plugins.get("modifications", step["method"])
        effect = plugin.module.apply(model, plugin.settings(step["settings"]), data)
        chosen = effect.pop("layer_map", range(len(layers)))
        layers = [None if index is None else layers[index] for index in chosen]
        achieved.append({"method": step["method"], **effect})
        _require_finite(model, step["method"])
    parameters = sum(p.numel() for p in model.parameters())
    record = {
        "recipe": recipe,
        "achieved": achieved,
        "layer_map": layers,
        "attachments": attachments.attached(model),
        "parameters": parameters,
        "threads": torch.get_num_threads(),
        "fingerprint": fingerprint(model),
    }
    return model, record


def pack(record: dict[str, Any], data: ModificationData, folder: Path) -> bool:
    """Write the packed checkpoint that a variant's last step stands for; returns False if it stands for none.

    The steps before it are followed again. Raises ValueError if the file reads back as other weights than the record's.
    """
    *before, last = record["recipe"]
    plugin = plugins.get("modifications", last["method"])
    if not hasattr(plugin.module, "pack"):
        return False
    with _threads(record["threads"]):
        model, _ = follow(before, data)
        plugin.module.pack(model, plugin.settings(last["settings"]), data, folder)
    method = packed.method_of(files.read_json(folder / "config.json"))
    found = packed.load(folder, str(method), data.dtype, data.device)
    for spec in record["attachments"]:
        attachments.attach(found, spec)
    if fingerprint(found) != record["fingerprint"]:
        raise ValueError(
            f"{last['method']}: the packed file written now reads back as other weights than those that were measured; "
            "other software, another device or another number of threads made it."
        )
    return True


def _start(recipe: list[dict[str, Any]], data: ModificationData) -> PreTrainedModel:
    """The reference, or the weights that the first step brings. Raises ValueError if a later step brings some."""
    brought = [hasattr(plugins.get("modifications", step["method"]).module, "load") for step in recipe]
    if any(brought[1:]):
        method = recipe[brought.index(True, 1)]["method"]
        raise ValueError(f"{method}: it brings its own weights, so it must be the first step.")
    if not any(brought):
        return models.load(data.base, data.dtype, data.device)
    plugin = plugins.get("modifications", recipe[0]["method"])
    return plugin.module.load(plugin.settings(recipe[0]["settings"]), data)


def save(model: PreTrainedModel, folder: Path, record: dict[str, Any]) -> int:
    """Write a checkpoint folder in one step; returns the bytes of its weights."""
    with files.atomic(folder) as part:
        return write(model, part, record)


def write(model: PreTrainedModel, folder: Path, record: dict[str, Any]) -> int:
    """Write what plain transformers loads, and ``hemorrhage.json``; returns the bytes of the weights."""
    model.save_pretrained(folder)
    size = sum(path.stat().st_size for path in Path(folder).glob("*.safetensors"))
    files.write_json(Path(folder) / RECORD, {**record, "bytes": size})
    return size


def load(folder: str | os.PathLike, dtype: str, device: str) -> PreTrainedModel:
    """Load a checkpoint folder and put its attachments back as hooks."""
    model = models.load(folder, dtype, device)
    for spec in files.read_json(Path(folder) / RECORD).get("attachments", []):
        attachments.attach(model, spec)
    return model


def evict(keep: str) -> None:
    """Drop the entries used longest ago until the cache is within its limit; entries in use and ``keep`` stay.

    What jobs that were killed left half saved goes too, a day later. One job at a time: a second one would take the
    entry that the first is removing for one in use, and drop the next instead.
    """
    limit = float(os.environ.get("HEMORRHAGE_CACHE_GB", "20")) * BYTES_PER_GB
    with files.locked(_root() / "evict.lock"):
        _remove_leftovers()
        sizes = _sizes()
        for path in list(sizes):
            if sum(sizes.values()) <= limit:
                return
            if path.name == keep:
                continue
            with files.locked(_lock(path.name), wait=False) as free:
                if free:
                    files.remove(path)
                    sizes.pop(path)


def _sizes() -> dict[Path, int]:
    """Bytes of every entry, the one used longest ago first."""
    found = []
    for path in _root().iterdir():
        if path.name.startswith(files.PARTIAL) or not (path / RECORD).is_file():
            continue
        with contextlib.suppress(FileNotFoundError):  # another job removes it, or saves it again, at this moment
            found.append((path.stat().st_mtime, path, sum(file.stat().st_size for file in path.iterdir())))
    return {path: size for _, path, size in sorted(found)}


def _remove_leftovers() -> None:
    """Remove what ``save`` began a day ago: no job writes for so long without adding a file."""
    for part in _root().glob(f"{files.PARTIAL}*"):
        with contextlib.suppress(FileNotFoundError):  # another job saves or removes it at this moment
            if time.time() - part.stat().st_mtime > LEFTOVER_SECONDS:
                files.remove(part)


@contextlib.contextmanager
def _threads(number: int) -> Iterator[None]:
    """Compute with the threads that made the first checkpoint: another number adds sums in another order."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _root() -> Path:
    root = cache.checkpoints()
    root.mkdir(parents=True, exist_ok=True)
    return root


def _folder(entry: str) -> Path:
    return _root() / entry


def _lock(entry: str) -> Path:
    return _root() / f"{entry}.lock"


def _depth(model: PreTrainedModel) -> int:
    return int(model.config.get_text_config().num_hidden_layers)


def _require_finite(model: PreTrainedModel, method: str) -> None:
    for name, weight in model.named_parameters():
        if weight.is_floating_point() and not bool(torch.isfinite(weight).all()):
            raise ValueError(f"{method}: it left values in {name} that are not finite.")
