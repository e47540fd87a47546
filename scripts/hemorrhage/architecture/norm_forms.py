"""Norms that do something else with the gain they have: a fixed scale, centred input, or none of it.

Forms: ``fixed`` multiplies the input by one number instead of dividing it by its spread (a layer norm still subtracts
the mean, which is linear); ``layer`` subtracts the mean over
channels first, which makes an RMS norm a layer norm; ``rms`` divides by the root mean square without subtracting the
mean, which makes a layer norm an RMS norm. Gain and bias stay in all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

from hemorrhage import settings
from hemorrhage.architecture import norms

FORMS = ("fixed", "layer", "rms")


def install(model: PreTrainedModel, spec: dict[str, object]) -> None:
    """Put a norm attachment on the model; raises ValueError for an unknown norm, form or scale."""
    known = {name: module for name, module in model.named_modules() if norms.is_norm(module)}
    name = str(spec.get("target"))
    settings.require(name, known, "target of the norm attachment")
    form = spec.get("form")
    settings.require(form, FORMS, "form of the norm attachment")
    module = known[name]
    if form == "layer":
        module.register_forward_pre_hook(_centre)
        return
    scale = settings.number("scale", spec.get("scale")) if form == "fixed" else None
    centred = scale is not None and norms.subtracts_mean(module)
    module.register_forward_hook(_replacement(scale, norms.offset(module), centred))


def _centre(_module: nn.Module, args: tuple[Tensor, ...]) -> tuple:
    return (args[0] - args[0].mean(-1, keepdim=True), *args[1:])


def _replacement(scale: float | None, offset: float, centred: bool) -> Callable:
    def hook(module: Any, args: tuple[Tensor, ...], out: Tensor) -> Tensor:
        x = args[0].float()
        x = x - x.mean(-1, keepdim=True) if centred else x
        factor: Any = scale
        if factor is None:
            epsilon = getattr(module, norms.epsilon(module) or "", 0.0)
            factor = (x.square().mean(-1, keepdim=True) + epsilon).rsqrt()
        made = x * factor * (module.weight.float() + offset)
        bias = getattr(module, "bias", None)
        return (made if bias is None else made + bias.float()).to(out.dtype)

    return hook
