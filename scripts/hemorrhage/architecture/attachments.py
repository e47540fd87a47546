"""Attachments: what weights cannot say. They are kept in ``hemorrhage.json`` and put back as hooks when it is loaded.

Three kinds: an *activation quantizer* rounds the input of one target; a *logit scale* multiplies the logits after
everything that the architecture does to them (a temperature of 1 / factor, which ``generate`` sees too); a *norm* lets
one norm do something else with its gain (``norm_forms.py``).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import nn
from transformers import PreTrainedModel

from hemorrhage import settings
from hemorrhage.architecture import norm_forms
from hemorrhage.architecture.targets import find

NOTE = "hemorrhage_attachments"  # the attribute of the model
GRIDS = ("per_token", "per_tensor", "per_channel")
FIELDS = {
    "activation_quantizer": ("kind", "target", "bits", "grid", "scale", "smooth", "exact"),
    "logit_scale": ("kind", "factor"),
    "norm": ("kind", "target", "form", "scale"),
}


def attach(model: PreTrainedModel, spec: dict[str, object]) -> None:
    """Install one attachment and note it on the model.

    Args:
        model: a causal LM.
        spec: ``{"kind": "activation_quantizer", "target": name, "bits": 8, "grid": "per_token" | "per_tensor" |
            "per_channel", "scale": step of the grid, a list of steps by channel, or None}`` (a per-token grid makes its
            own), or ``{"kind": "logit_scale", "factor": float}``. A quantizer may have ``smooth``, a list by channel:
            x/smooth is rounded and multiplied by it again; and ``exact``, a list of channels that are not rounded. Or
            ``{"kind": "norm", "target": path of the norm, "form": "fixed" | "layer" | "rms", "scale": float | None}``.

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
    elif kind == "norm":
        norm_forms.install(model, spec)
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
    width = targets[name].in_features
    scale = _step(spec.get("grid"), spec.get("scale"), width)
    smooth = None if spec.get("smooth") is None else _by_channel("smooth", spec["smooth"], width)
    exact = None if spec.get("exact") is None else _channels(spec["exact"], width)
    targets[name].module.register_forward_pre_hook(_quantizer(bits, scale, smooth, exact))


def _step(grid: object, scale: object, width: int) -> torch.Tensor | None:
    """The step of a per-tensor grid, the steps of a per-channel grid; None for a per-token grid."""
    settings.require(grid, GRIDS, "grid")
    if grid == "per_channel":
        return _by_channel("scale", scale, width)
    if grid == "per_token":
        if scale is not None:
            raise ValueError(f"scale: {scale!r} is given for a per_token grid, which makes its own for every token.")
        return None
    step = settings.number("scale", scale)
    if step <= 0:
        raise ValueError(f"scale: {scale!r} must be positive; it is the step of the grid.")
    return torch.tensor(step)


def _by_channel(name: str, values: object, width: int) -> torch.Tensor:
    """One positive number for every input channel, as a float32 vector."""
    if not isinstance(values, (list, tuple)) or len(values) != width:
        raise ValueError(f"{name}: one number for each of the {width} input channels is needed, in a list.")
    numbers = torch.tensor([settings.number(name, value) for value in values])
    if not bool((numbers > 0).all()):
        raise ValueError(f"{name}: its numbers must be positive, the smallest is {float(numbers.min()):g}.")
    return numbers


def _channels(values: object, width: int) -> torch.Tensor:
    """Indices of input channels as an int64 vector."""
    if not isinstance(values, (list, tuple)):
        raise ValueError(f"exact: {values!r} is not a list of input channels.")
    return torch.tensor([settings.whole("exact", value, 0, width - 1) for value in values], dtype=torch.long)


def _quantizer(
    bits: int, scale: torch.Tensor | None, smooth: torch.Tensor | None, exact: torch.Tensor | None
) -> Callable:
    from hemorrhage.methods.tensors import quantize_activation

    def hook(module: nn.Module, args: tuple[torch.Tensor, ...]) -> tuple:
        x = args[0]
        placed = [None if vector is None else vector.to(x.device) for vector in (scale, smooth, exact)]
        rounded = quantize_activation(x.detach(), bits, *placed)
        # straight-through (Bengio et al. 2013, arXiv 1308.3432): rounding has no gradient of its own to train behind it
        return (rounded + (x - x.detach()) if x.requires_grad else rounded, *args[1:])

    return hook
