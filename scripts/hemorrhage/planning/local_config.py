"""What a local model folder's config.json tells about the model, read without torch.

The Snakefile is parsed with this, so that a group that does not divide a width is refused before a job starts.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

# The same fact under the names that architectures give it.
NAMES = {
    "hidden_size": ("hidden_size", "n_embd", "d_model"),
    "intermediate_size": ("intermediate_size", "n_inner", "ffn_dim", "d_ff"),
    "num_hidden_layers": ("num_hidden_layers", "n_layer", "num_layers"),
    "num_attention_heads": ("num_attention_heads", "n_head"),
    "num_key_value_heads": ("num_key_value_heads",),
    "head_dim": ("head_dim",),
    "vocab_size": ("vocab_size",),
    "max_position_embeddings": ("max_position_embeddings", "n_positions", "n_ctx"),
}


def target_widths(sizes: Mapping[str, int]) -> dict[str, int]:
    """Return the widths that targets read, of those in ``sizes`` (what ``facts`` returns), by name."""
    return {name: sizes[name] for name in ("hidden_size", "intermediate_size") if name in sizes}


def facts(path: str | os.PathLike) -> dict[str, int]:
    """Return sizes of the model in folder ``path``, by the names of ``NAMES``; {} if there is no readable config.json.

    A model with parts (text, vision) is described by its text part. What a config does not say is left out; GPT-2's
    width of the feed-forward layer, which it leaves to be four times ``hidden_size``, is filled in.
    """
    try:
        config = json.loads((Path(path) / "config.json").read_text(encoding="utf8"))
    except (OSError, ValueError):
        return {}
    config = {**config, **(config.get("text_config") or {})}
    found = {
        name: next((config[key] for key in keys if isinstance(config.get(key), int)), None)
        for name, keys in NAMES.items()
    }
    if "n_embd" in config and found["intermediate_size"] is None:
        found["intermediate_size"] = 4 * config["n_embd"]
    return {name: value for name, value in found.items() if value is not None}
