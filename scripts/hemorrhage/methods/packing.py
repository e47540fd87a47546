"""What the deployed formats share: a packed file is written, read back, and what it stands for is put into the targets.

A method of the family ``deployed`` has ``pack``, which writes what users serve through the library that they use. Its
effect is that file's and no simulation's: the weights are read back by ``packed.load``, so every probe measures the
file, and its bytes are counted on disk. Everything outside the targets must come back bit for bit. The file is in
the study's dtype, so the part that is not packed counts 32 bits a weight with float32; ``bits_per_weight`` is of the
targets alone, scales, zero points and indices included.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import struct
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hemorrhage.settings import whole

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from hemorrhage.modification_data import ModificationData

LINEAR = "linear"


def validate_group(settings: Any, least: int = 2) -> None:
    """Settle ``group`` of a frozen ``Settings``: None or 0 gives a whole row one scale and becomes None."""
    group = settings.group or None
    object.__setattr__(settings, "group", None if group is None else whole("group", group, least))


def other_than_linear(model: PreTrainedModel, library: str) -> str | None:
    """Return why a library cannot pack all targets of a model: it replaces nn.Linear layers by their calls."""
    from hemorrhage.architecture import targets

    other = next((target for target in targets.find(model) if target.kind != LINEAR), None)
    if other is None:
        return None
    return (
        f"{type(model).__name__}: {other.name} is not an nn.Linear that is called, and {library} packs no other weight."
    )


def through_file(
    model: PreTrainedModel, data: ModificationData, pack: Callable[[Path], None], unsuited: str | None
) -> dict[str, Any]:
    """Pack a model, read the file back, and write what it stands for into the targets.

    Args:
        model: changed in place, in its targets alone.
        data: dtype and device of the weights that are read back.
        pack: writes the packed checkpoint of ``model`` into a folder.
        unsuited: why the library does not serve the architecture, None if it does.

    Returns:
        ``storage`` (the method that the file names), ``bytes_on_disk`` of its weight files, ``bytes_before`` (what the
        same model takes dense), sizes over targets and model, and the relative error of the weights.

    Raises:
        ValueError: an architecture that the library does not serve, weights that are not finite, a file that cannot be
            read back, or one that changed more than targets.
    """
    from hemorrhage import files
    from hemorrhage.architecture import packed, targets
    from hemorrhage.methods.quantization import Writer
    from hemorrhage.methods.tensors import require_finite

    if unsuited:
        raise ValueError(unsuited)
    found = targets.find(model)
    for target in found:
        require_finite(target.weight, target.name)
    with tempfile.TemporaryDirectory(prefix="hemorrhage-") as place:
        folder = Path(place) / "packed"
        pack(folder)
        method = packed.method_of(files.read_json(folder / "config.json"))
        twin = packed.load(folder, str(method), data.dtype, data.device)
        stored, on_disk = tensor_bytes(folder), weight_bytes(folder)
    _require_untouched(model, twin, {target.name for target in found})
    # By name: a library that replaces layers may leave them in another order.
    weights = {target.name: target.weight for target in targets.find(twin)}
    writer = Writer(model)
    for target in found:
        size = sum(stored[key] for key in stored if _holds(key, target.module_name))
        writer.write(target, weights[target.name], 8 * size / target.weight.numel())
    effect = writer.achieved()
    del effect["bits_per_parameter"]  # computed for half precision; the bytes of this file are known
    return {"storage": method, "bytes_on_disk": on_disk, "bytes_before": _dense_bytes(model), **effect}


@contextlib.contextmanager
def dense_folder(model: PreTrainedModel, data: ModificationData) -> Iterator[Path]:
    """Yield a folder with the dense checkpoint of the model as it is and the reference's tokenizer, then remove it."""
    from hemorrhage.architecture import models

    with tempfile.TemporaryDirectory(prefix="hemorrhage-") as place:
        folder = Path(place) / "dense"
        model.save_pretrained(folder)
        models.load_tokenizer(data.base).save_pretrained(folder)
        yield folder


def save_by_transformers(
    model: PreTrainedModel, data: ModificationData, config: Any, folder: str | os.PathLike
) -> None:
    """Write the packed checkpoint that transformers makes of the model under a quantization config."""
    import torch

    from hemorrhage.architecture.auto import AutoModelForCausalLM

    with dense_folder(model, data) as dense:
        changed = AutoModelForCausalLM.from_pretrained(
            dense,
            dtype=getattr(torch, data.dtype),
            local_files_only=True,
            quantization_config=config,
            device_map={"": data.device},
        )
    changed.save_pretrained(folder)


def left_dense(model: PreTrainedModel) -> list[str]:
    """Return the names of the nn.Linear layers that are no targets (head, routers): a library must leave them."""
    from torch import nn

    from hemorrhage.architecture import targets

    packed_names = {target.module_name for target in targets.find(model)}
    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    return [name for name in linear if name not in packed_names]


def weight_bytes(folder: str | os.PathLike) -> int:
    """Return the bytes of a checkpoint's weight files: safetensors, or where there are none, torch's own."""
    files = list(Path(folder).glob("*.safetensors")) or list(Path(folder).glob("pytorch_model*.bin"))
    return sum(path.stat().st_size for path in files)


def tensor_bytes(folder: str | os.PathLike) -> dict[str, int]:
    """Return the bytes of every tensor in a checkpoint's weight files, from their headers."""
    sizes: dict[str, int] = {}
    for path in sorted(Path(folder).glob("*.safetensors")):
        with open(path, "rb") as handle:
            header = json.loads(handle.read(*struct.unpack("<Q", handle.read(8))))
        header.pop("__metadata__", None)
        sizes |= {name: entry["data_offsets"][1] - entry["data_offsets"][0] for name, entry in header.items()}
    return sizes


@contextlib.contextmanager
def scratch_directory() -> Iterator[None]:
    """Work in an empty folder that is removed: some libraries write logs where they run."""
    place = tempfile.mkdtemp(prefix="hemorrhage-")
    try:
        with contextlib.chdir(place):
            yield
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _holds(key: str, module: str) -> bool:
    """Whether a tensor of a packed file is a part of a layer's weight."""
    return key.startswith(f"{module}.") and key != f"{module}.bias"


def _dense_bytes(model: PreTrainedModel) -> int:
    """Bytes of the model's tensors, shared ones once."""
    tensors = {tensor.data_ptr(): tensor for tensor in model.state_dict().values()}
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def _require_untouched(model: PreTrainedModel, twin: PreTrainedModel, changed: set[str]) -> None:
    import torch

    theirs = twin.state_dict()
    for name, tensor in model.state_dict().items():
        if name not in changed and not (name in theirs and torch.equal(tensor, theirs[name])):
            raise ValueError(f"{name}: the packed file holds other values than the model; only targets may change.")
