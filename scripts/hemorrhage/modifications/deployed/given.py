"""A ready checkpoint, as it would be deployed: measured against the reference like any other variant.

It may be dense, written by this project (``snakemake export``; its attachments come back), packed with GPTQ, AWQ,
bitsandbytes, torchao or compressed-tensors, or a GGUF file. Packed weights are unpacked to dense ones in the study's
dtype, so that what is measured is the file and not the rounding of one kernel. Other steps may follow it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

NEEDS: frozenset[str] = frozenset()
AXIS = None
NEUTRAL = None
EXAMPLE: dict[str, object] = {"path": "path:model"}
REPAIRS: tuple[str, ...] = ()


@dataclass(frozen=True)
class Settings:
    """Where the checkpoint lies.

    Attributes:
        path: ``path:folder``, ``path:file.gguf``, ``hub:owner/name@revision`` or ``package:…`` as for a model's
            source; without a prefix it is a local path.
    """

    path: str

    def __post_init__(self) -> None:
        if not isinstance(self.path, str) or not self.path.strip():
            raise ValueError(
                f"path: {self.path!r} names no checkpoint; give path:folder, path:file.gguf or hub:name@revision."
            )


def load(settings: Settings, data):
    """Return the model of the checkpoint in ``data.dtype`` on ``data.device``, in evaluation mode.

    Raises:
        ValueError: nothing there, a package that is missing, a checkpoint that cannot be read, or a tokenizer or
            vocabulary that is not the reference's.
        OSError: the hub or the package registry cannot be reached.
    """
    from hemorrhage import cache
    from hemorrhage.sources import fetch

    has_kind = settings.path.partition(":")[0] in fetch.kinds()
    source = settings.path if has_kind else f"path:{settings.path}"
    place = fetch.fetch(source, None, cache.downloads(), data.trusted)
    model, tokenizer, facts = _from_file(place, data) if place.is_file() else _from_folder(place, data)
    _require_same_vocabulary(settings.path, model, tokenizer, data)
    model.hemorrhage_given = facts
    return model


def identify(settings: Settings) -> str:
    """Return a digest of a local checkpoint, or its name and revision; a part of the key under which it is cached."""
    from pathlib import Path

    from hemorrhage import checksums

    local = Path(settings.path.removeprefix("path:"))
    return checksums.sha256(local) if local.exists() else settings.path


def apply(model, settings: Settings, data) -> dict[str, Any]:
    """Leave the model as it was loaded; returns how its weights were stored (``storage``, ``bytes_on_disk``)."""
    return dict(model.hemorrhage_given)


def _from_file(place: Path, data):
    """(model, tokenizer, facts) of a GGUF file."""
    from hemorrhage.architecture import models, packed

    model, tokenizer, facts = models.load_source(place, data.dtype, data.trusted)
    packed.forget(model)
    stored = {"storage": facts["baseline"], "bytes_on_disk": place.stat().st_size}
    return model.to(data.device).requires_grad_(False), tokenizer, stored


def _from_folder(place: Path, data):
    """(model, tokenizer or None, facts) of a Hugging Face folder; attachments are put back."""
    from hemorrhage import files
    from hemorrhage.architecture import attachments, models, packed
    from hemorrhage.methods import packing

    config = files.read_json(place / "config.json") if (place / "config.json").is_file() else {}
    method = packed.method_of(config)
    model = (
        packed.load(place, method, data.dtype, data.device)
        if method
        else models.load(place, data.dtype, data.device, trust=data.trusted)
    )
    if (place / "hemorrhage.json").is_file():
        for spec in files.read_json(place / "hemorrhage.json").get("attachments", []):
            attachments.attach(model, spec)
    has_tokenizer = any(place.glob("tokenizer*"))
    stored = {"storage": method or "dense", "bytes_on_disk": packing.weight_bytes(place)}
    return model, models.load_tokenizer(place, data.trusted) if has_tokenizer else None, stored


def _require_same_vocabulary(path: str, model, tokenizer, data) -> None:
    """Token ids must mean the same in both models, or no comparison of their distributions means anything."""
    from hemorrhage.architecture import models

    reference = models.load_tokenizer(data.base).get_vocab()
    own = None if tokenizer is None else tokenizer.get_vocab()
    if own is not None and own != reference:
        differing = len(set(own.items()) ^ set(reference.items()))
        raise ValueError(
            f"given: the tokenizer of {path} is not the reference's ({len(own)} and {len(reference)} "
            f"tokens, {differing} entries differ); only models of one tokenizer can be compared."
        )
    rows = model.get_input_embeddings().weight.shape[0]
    if rows < len(reference):
        raise ValueError(f"given: {path} embeds {rows} tokens, the reference's tokenizer has {len(reference)}.")
