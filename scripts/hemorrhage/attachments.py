"""Attachments: what weights cannot say. They are kept in ``hemorrhage.json`` and put back as hooks when it is loaded.

Two kinds: an *activation quantizer* rounds the input of one target; a *logit scale* multiplies the logits after
everything that the architecture does to them (a temperature of 1 / factor, which ``generate`` sees too).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import nn
from transformers import PreTrainedModel

from hemorrhage import settings
from hemorrhage.targets import find

NOTE = "hemorrhage_attachments"  # the attribute of the model
GRIDS = ("per_token", "per_tensor")
FIELDS = {"activation_quantizer": ("kind", "target", "bits", "grid", "scale"), "logit_scale": ("kind", "factor")}


def attach(model: PreTrainedModel, spec: dict[str, object]) -> None:
    """Install one attachment and note it on the model.

    Args:
        model: a causal LM.
        spec: ``{"kind": "activation_quantizer", "target": name, "bits": 8, "grid": "per_token" | "per_tensor",
            "scale": step of the grid or None}`` (a per-tensor grid needs a scale, a per-token grid makes its own), or
            ``{"kind": "logit_scale", "factor": float}``.

    Raises:
        ValueError: for an unknown kind, key, grid or target, a value out of range, or a target whose input no call of
            a module shows (a fused expert, a functional use).
    """
    kind = spec.get("kind")
    settings.require(kind, FIELDS, "kind of attachment")
    for key in spec:
        settings.require(key, FIELDS[str(kind)], f"key of the {kind} attachment")
    if kind == "logit_scale":
        _attach_scale(model, spec)
    else:
        _attach_quantizer(model, spec)
    setattr(model, NOTE, [*attached(model), dict(spec)])


def attached(model: PreTrainedModel) -> list[dict[str, object]]:
    """Return copies of the attachments of a model, in the order in which they were installed."""
    return [dict(spec) for spec in getattr(model, NOTE, [])]


def logit_factor(specs: list[dict[str, object]]) -> float:
    """Return the product of the factors of all logit_scale attachments."""
    factors = [settings.number("factor", spec["factor"]) for spec in specs if spec["kind"] == "logit_scale"]
    return math.prod(factors, start=1.0)


def _attach_scale(model: PreTrainedModel, spec: dict[str, object]) -> None:
    factor = settings.number("factor", spec.get("factor"))
    if factor <= 0:
        raise ValueError(f"factor: {factor!r} must be positive; it multiplies the logits.")

    def scale(module: nn.Module, args: tuple, out: object) -> object:
        # the last thing that the model does: soft-cap and the architecture's own scale come before
        if isinstance(out, tuple):
            return (out[0] * factor, *out[1:])
        out.logits = out.logits * factor  # type: ignore[attr-defined]
        return out

    model.register_forward_hook(scale)


def _attach_quantizer(model: PreTrainedModel, spec: dict[str, object]) -> None:
    name = str(spec.get("target"))
    targets = {target.name: target for target in find(model)}
    settings.require(name, targets, "target of the activation_quantizer attachment")
    if not targets[name].called:
        raise ValueError(f"{name}: no module call shows its input alone, so no activation quantizer can be put on it.")
    bits = settings.whole("bits", spec.get("bits"), 2, 16)
    scale = _step(spec.get("grid"), spec.get("scale"))
    targets[name].module.register_forward_pre_hook(_quantizer(bits, scale))


def _step(grid: object, scale: object) -> float | None:
    """The step of a per-tensor grid; None for a per-token grid."""
    settings.require(grid, GRIDS, "grid")
    if grid == "per_token":
        if scale is not None:
            raise ValueError(f"scale: {scale!r} is given for a per_token grid, which makes its own for every token.")
        return None
    step = settings.number("scale", scale)
    if step <= 0:
        raise ValueError(f"scale: {scale!r} must be positive; it is the step of the grid.")
    return step


def _quantizer(bits: int, scale: float | None) -> Callable:
    from hemorrhage.tensors import quantize_activation

    def hook(module: nn.Module, args: tuple[torch.Tensor, ...]) -> tuple:
        return (quantize_activation(args[0], bits, scale), *args[1:])

    return hook
