"""Rotary positions: where their frequencies are kept, and other ones."""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedConfig, PreTrainedModel

PLAIN = "default"


def modules(model: PreTrainedModel) -> dict[str, Any]:
    """Return the modules that keep rotary frequencies and the config that they were made from, by path."""
    return {
        name: module
        for name, module in model.named_modules()
        if "rotary" in type(module).__name__.lower() and hasattr(module, "inv_freq") and hasattr(module, "config")
    }


def unsuited(model: PreTrainedModel) -> str | None:
    """Return one sentence if the model has no plain rotary positions, else None."""
    parameters = getattr(model.config.get_text_config(), "rope_parameters", None)
    if not modules(model) or not parameters:
        return f"{type(model).__name__}: it has no rotary positions that could be scaled."
    kinds = {entry.get("rope_type", PLAIN) for entry in _entries(parameters)}
    if kinds != {PLAIN}:
        return f"{type(model).__name__}: its rotary positions are scaled already ({', '.join(sorted(kinds))})."
    return None


def rescale(model: PreTrainedModel, kind: str, factor: float) -> dict[str, Any]:
    """Scale the positions in config and modules; returns the new parameters.

    Args:
        model: changed in place.
        kind: "linear", "ntk" or "yarn".
        factor: the new context length over the trained one.
    """
    config = model.config.get_text_config()
    parameters = config.rope_parameters
    if "rope_theta" in parameters:
        config.rope_parameters = _scaled(config, parameters, kind, factor)
    else:
        config.rope_parameters = {key: _scaled(config, entry, kind, factor) for key, entry in parameters.items()}
    for name, module in modules(model).items():
        fresh = type(module)(config)
        parent, _, last = name.rpartition(".")
        setattr(model.get_submodule(parent), last, fresh.to(module.inv_freq.device))
    return dict(config.rope_parameters)


def _scaled(config: PreTrainedConfig, before: dict[str, Any], kind: str, factor: float) -> dict[str, Any]:
    if kind == "ntk":
        head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        dim = int(head * before.get("partial_rotary_factor", 1.0))
        power = dim / (dim - 2) if dim > 2 else 0.0  # a single frequency is the fastest one, which stays
        return {**before, "rope_theta": before["rope_theta"] * factor**power}  # the slowest is stretched by the factor
    scaled = {**before, "rope_type": kind, "factor": factor}
    if kind == "yarn":
        scaled["original_max_position_embeddings"] = config.max_position_embeddings
    return scaled


def _entries(parameters: dict[str, Any]) -> list[dict[str, Any]]:
    """The parameters by kind of layer, or the one entry for all."""
    return [parameters] if "rope_theta" in parameters else [entry for entry in parameters.values() if entry]
