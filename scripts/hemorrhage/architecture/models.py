"""Models on disk: the clean dense base checkpoint that everything starts from, and loading it.

A base checkpoint holds what plain transformers loads (safetensors, config, tokenizer) and ``hemorrhage.json``, which
says where it came from and whether its weights were ever quantized.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from hemorrhage import checksums, files
from hemorrhage.architecture import gguf_files

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

RECORD = "hemorrhage.json"
# Where the weights were loaded from, and how they were packed there: wrong for a dense copy.
_STALE_CONFIG = ("quantization_config", "_name_or_path", "_model_name_or_path", "is_local", "local_files_only")


def prepare(
    source_path: str | os.PathLike,
    target_dir: str | os.PathLike,
    *,
    source: str,
    sha256: str | None = None,
    dtype: str = "float32",
    trust: Collection[str] = (),
) -> dict[str, Any]:
    """Write the dense base checkpoint with its tokenizer; returns the record in its ``hemorrhage.json``.

    Args:
        source_path: a Hugging Face folder or a .gguf file.
        target_dir: written as a whole or not at all.
        source: how the config names it, for the record.
        sha256: of the source, for the record; computed if None.
        dtype: of the weights written, "float32" for instance.
        trust: "pickles", "remote_code" if pickled weights, code of the model's own may be loaded.

    Raises:
        ValueError: a file that is no model, weights that are pickled, quantized or incomplete, unwanted code.
        OSError: the target cannot be written.
    """
    model, tokenizer, baseline = load_source(source_path, dtype, trust)
    digest = weights_digest(model)
    record = {
        "source": source,
        "sha256": sha256 or checksums.sha256(source_path),
        "dtype": dtype,
        **baseline,
        "fingerprint": digest,
        "tied": bool(model.config.get_text_config().tie_word_embeddings),
    }
    with files.atomic(target_dir) as part:
        _dense_copy(model).save_pretrained(part)
        tokenizer.save_pretrained(part)
        for name in ("config.json", "tokenizer_config.json"):
            _clean_config(part / name)
        files.write_json(part / RECORD, record)
        del model
        # Read back what was written: ties and dtypes have been lost by saving before.
        if weights_digest(load(part, dtype, "cpu")) != digest:
            raise ValueError(f"{source_path}: its weights changed when they were saved and loaded again.")
    return record


def load_source(
    path: str | os.PathLike, dtype: str, trust: Collection[str] = ()
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, dict[str, Any]]:
    """Return (model, tokenizer, facts) of a dense Hugging Face folder or a .gguf file, on the CPU.

    The facts are ``baseline``, "dense" or "dequantised Q4_1", and ``weight_types``, weights by type of storage.
    Raises ValueError as ``prepare`` does.
    """
    path = Path(path)
    if path.is_file():
        return _from_gguf(path, dtype)
    config = _config(path)
    if config.get("quantization_config"):
        raise ValueError(
            f"{path}: its weights are quantized; a reference must be dense, and a quantized checkpoint is "
            "measured as a variant with the modification 'given'."
        )
    model = load(path, dtype, "cpu", trust=trust)
    stored = str(config.get("dtype") or config.get("torch_dtype") or dtype)
    weights = sum(parameter.numel() for parameter in model.parameters())
    return model, load_tokenizer(path, trust), {"baseline": "dense", "weight_types": {stored: weights}}


def load(
    folder: str | os.PathLike,
    dtype: str,
    device: str | torch.device,
    attn_implementation: str | None = None,
    trust: Collection[str] = (),
) -> PreTrainedModel:
    """Return the model of a local checkpoint folder, in evaluation mode, without gradients.

    Args:
        folder: config.json and weights.
        dtype: "float32" for instance.
        device: "cpu" for instance.
        attn_implementation: "eager" or "sdpa"; None for transformers' choice.
        trust: "pickles", "remote_code"; a folder that this package wrote was trusted when it was made.

    Raises:
        ValueError: no model there, weights missing, left over or of another shape, pickles or code without trust.
    """
    from safetensors import SafetensorError

    folder = Path(folder)
    code = _require_trust(folder, trust)
    given: dict[str, Any] = {
        "pretrained_model_name_or_path": folder,
        "trust_remote_code": code,
        # True refuses pickles a second time; None lets transformers choose.
        "use_safetensors": True if any(folder.glob("*.safetensors")) else None,
    }
    if attn_implementation is not None:
        given["attn_implementation"] = attn_implementation
    try:
        model: Any = _complete_model(folder, given, dtype)
    except (OSError, RuntimeError, KeyError, ImportError, SafetensorError) as error:
        raise ValueError(f"{folder}: the model cannot be loaded ({_first_line(error)}).") from None
    return model.to(device).eval().requires_grad_(False)


def load_tokenizer(folder: str | os.PathLike, trust: Collection[str] = ()) -> PreTrainedTokenizerBase:
    """Return the tokenizer of a local checkpoint folder. Raises ValueError if there is none."""
    from transformers import AutoTokenizer

    _be_quiet()
    code = _require_trust(Path(folder), trust, weights=False)
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=code)
    except (OSError, ValueError, KeyError, ImportError, AttributeError, TypeError) as error:
        raise ValueError(f"{folder}: the tokenizer cannot be loaded ({_first_line(error)}).") from None


def weights_digest(model: torch.nn.Module) -> str:
    """Return a digest of every parameter and persistent buffer: name, dtype, shape, bytes."""
    state = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(model.state_dict().items()):
        state.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        state.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return state.hexdigest()


def _from_gguf(path: Path, dtype: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, dict[str, Any]]:
    from transformers import AutoTokenizer

    facts = gguf_files.read(path)
    given: dict[str, Any] = {"pretrained_model_name_or_path": path.parent, "gguf_file": path.name}
    try:
        # The bar of this one conversion cannot be switched off.
        with contextlib.redirect_stderr(io.StringIO()):
            model = _complete_model(path, given, dtype)
        tokenizer = AutoTokenizer.from_pretrained(**given, local_files_only=True)
    except (OSError, RuntimeError, KeyError, ImportError, NotImplementedError) as error:
        raise ValueError(f"{path}: transformers cannot load this GGUF file ({_first_line(error)}).") from None
    gguf_files.correct_tokenizer(tokenizer, facts)
    return model.eval(), tokenizer, {"baseline": facts.baseline, "weight_types": facts.weight_types}


def _complete_model(path: Path, given: dict[str, Any], dtype: str) -> PreTrainedModel:
    """Load a model and refuse it if config and weights do not fit together."""
    from hemorrhage.architecture.auto import AutoModelForCausalLM

    _be_quiet()
    loaded: Any = AutoModelForCausalLM.from_pretrained(
        **given, dtype=getattr(torch, dtype), local_files_only=True, output_loading_info=True
    )
    model, info = loaded
    words = {"missing_keys": "missing", "unexpected_keys": "left over", "mismatched_keys": "of another shape"}
    for key, word in words.items():
        if info.get(key):
            raise ValueError(f"{path}: weights are {word} ({_some(info[key])}); they do not fit its config.")
    return model


def _dense_copy(model: PreTrainedModel) -> PreTrainedModel:
    """The same weights in a model that does not remember its source: transformers saves no model made from a GGUF."""
    config = model.config.to_dict()
    for key in _STALE_CONFIG:
        config.pop(key, None)
    with torch.device("meta"):
        dense = type(model)(type(model.config).from_dict(config))
    dense.load_state_dict(model.state_dict(), assign=True)
    dense.tie_weights()
    dense.generation_config = model.generation_config
    return dense


def _clean_config(path: Path) -> None:
    config = files.read_json(path)
    path.write_text(
        json.dumps({key: value for key, value in config.items() if key not in _STALE_CONFIG}, indent=2, sort_keys=True)
        + "\n",
        encoding="utf8",
    )


def _config(folder: Path) -> dict[str, Any]:
    if not (folder / "config.json").is_file():
        raise ValueError(f"{folder}: no config.json in it; give a Hugging Face model folder or a .gguf file.")
    return files.read_json(folder / "config.json")


def _require_trust(folder: Path, trust: Collection[str], weights: bool = True) -> bool:
    """Refuse pickles and code without trust; returns whether the model's own code is to be run."""
    is_ours = (folder / RECORD).is_file()
    has_code = any(
        "auto_map" in files.read_json(folder / name)
        for name in ("config.json", "tokenizer_config.json")
        if (folder / name).is_file()
    )
    if weights:
        _config(folder)
        pickles = sorted(path.name for path in folder.iterdir() if path.suffix in (".bin", ".pt", ".pth"))
        if not any(folder.glob("*.safetensors")):
            if not pickles:
                raise ValueError(f"{folder}: no weights (*.safetensors) in it.")
            if "pickles" not in trust:
                raise ValueError(
                    f"{folder}: its weights are pickled ({pickles[0]}), which can run any code; convert "
                    "them to safetensors, or name the model under trust.pickles in the config."
                )
    if has_code and not is_ours and "remote_code" not in trust:
        raise ValueError(
            f"{folder}: it brings code of its own (auto_map); name the model under trust.remote_code in "
            "the config to run it."
        )
    return has_code


def _some(names: Iterable[Any], most: int = 3) -> str:
    words = sorted(str(name[0] if isinstance(name, tuple) else name) for name in names)
    return ", ".join(words[:most]) + (f" and {len(words) - most} more" if len(words) > most else "")


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__).rstrip(".")


def _be_quiet() -> None:
    """No progress bars in logs; what is wrong is raised."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
