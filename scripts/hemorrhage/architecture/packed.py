"""Reading packed checkpoints (GPTQ, AWQ, bitsandbytes, torchao, compressed-tensors) as dense models.

The weights that a file stands for are unpacked to the study's dtype by the library that reads the format: they can be
measured on any device, changed further and saved. What is measured is the file, not the rounding of one kernel.
"""

from __future__ import annotations

import copy
import importlib.util
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from hemorrhage import files
from hemorrhage.architecture.auto import AutoModelForCausalLM
from hemorrhage.settings import require

# What transformers needs beside itself, as import names; they are also the names on the package index.
PACKAGES = {
    "gptq": ("gptqmodel", "optimum"),
    "awq": ("gptqmodel", "optimum"),
    "bitsandbytes": ("bitsandbytes",),
    "torchao": ("torchao",),
    "compressed-tensors": ("compressed_tensors",),
}


def method_of(config: dict[str, Any]) -> str | None:
    """Return the packing method that a ``config.json`` names, or None for a dense checkpoint."""
    quantization = config.get("quantization_config")
    return None if not quantization else str(quantization.get("quant_method", "unknown"))


def load(folder: Path, method: str, dtype: str, device: str) -> PreTrainedModel:
    """Return the dense model that a packed checkpoint stands for, in evaluation mode.

    Args:
        folder: a Hugging Face folder with a ``quantization_config``.
        method: its ``quant_method``.
        dtype: of the dense weights, "float32" for instance.
        device: where they go.

    Raises:
        ValueError: an unknown method, a package that is missing, or a checkpoint that its library cannot read.
    """
    require(method, PACKAGES, f"packing method of {folder}")
    if _quantizes_activations(folder):
        raise ValueError(
            f"{folder}: it quantises activations too, which only the kernels of its library do; "
            "measure the same weights with static_activations or dynamic_activations after them instead."
        )
    missing = [name for name in PACKAGES[method] if importlib.util.find_spec(name) is None]
    if missing:
        wanted = " and ".join(missing)
        raise ValueError(f"{folder}: its weights are packed with {method}; to read them install {wanted}.")
    try:
        model = AutoModelForCausalLM.from_pretrained(
            folder, dtype=getattr(torch, dtype), local_files_only=True, device_map={"": device}, **_options(method)
        )
        unpack(model, getattr(torch, dtype))
    except (OSError, ValueError, RuntimeError, KeyError, ImportError, NotImplementedError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(f"{folder}: its weights are packed with {method} and cannot be read ({reason}).") from None
    return model.eval().requires_grad_(False)


def unpack(model: PreTrainedModel, dtype: torch.dtype) -> None:
    """Replace every packed layer of a loaded model by a dense nn.Linear, in place, and forget the packing."""
    quantizer: Any = getattr(model, "hf_quantizer", None)
    is_of_bitsandbytes = quantizer is not None and quantizer.quantization_config.quant_method == "bitsandbytes"
    if is_of_bitsandbytes and not quantizer.quantization_config.load_in_4bit:
        model.dequantize(dtype)
    for name, module in list(model.named_modules()):
        if type(getattr(module, "weight", None)).__module__.startswith("torchao."):  # a tensor that packs itself
            module.weight = nn.Parameter(module.weight.dequantize().to(dtype), requires_grad=False)
            continue
        if hasattr(module, "dequantize_weight"):  # GPTQModel's layers keep weights as [in, out]
            weight = module.dequantize_weight().T
        elif is_of_bitsandbytes and hasattr(getattr(module, "weight", None), "quant_state"):
            weight = _four_bits(module.weight)
        elif getattr(module, "quantization_scheme", None) is not None and isinstance(module, nn.Linear):
            weight = module.weight  # compressed-tensors has unpacked it; its forward would round it once more
        else:
            continue
        parent, _, last = name.rpartition(".")
        setattr(model.get_submodule(parent), last, _dense(weight, getattr(module, "bias", None), dtype))
    forget(model)
    nn.Module.to(model, dtype)


def forget(model: PreTrainedModel) -> None:
    """Remove every mark that its weights were packed: transformers saves and casts it like any dense model then."""
    quantizer = getattr(model, "hf_quantizer", None)
    if quantizer is not None:
        quantizer.remove_quantization_config(model)
    steps: list[Any] = getattr(model, "_weight_conversions", None) or []
    # Steps that unpacked while loading have no way back; saving would ask them for it.
    model._weight_conversions = [step for step in steps if _has_a_way_back(step)]  # type: ignore[assignment]
    if hasattr(model, "hf_device_map"):
        del model.hf_device_map  # all on one device; transformers would take it for an offloaded model


def _four_bits(parameter: Any) -> Tensor:
    """The weight [out, in] that a 4-bit parameter of bitsandbytes stands for.

    Its scales belong to blocks of the flattened matrix. On CPUs bitsandbytes 0.50 unpacks a matrix with the wrong ones
    if its rows are no whole blocks; as one long row it is right.
    """
    from bitsandbytes.functional import dequantize_4bit

    state = copy.copy(parameter.quant_state)
    shape, state.shape = state.shape, torch.Size([1, state.shape.numel()])
    return dequantize_4bit(parameter.data, state).reshape(shape)


def _quantizes_activations(folder: Path) -> bool:
    config = files.read_json(folder / "config.json")["quantization_config"]
    if config["quant_method"] == "torchao":
        return "Activation" in str(config.get("quant_type"))  # in the name of the type, Int8DynamicActivation…
    return any(group.get("input_activations") for group in (config.get("config_groups") or {}).values())


def _has_a_way_back(conversion: Any) -> bool:
    try:
        conversion.reverse_transform()
    except NotImplementedError:
        return False
    return True


def _options(method: str) -> dict[str, Any]:
    """How a library is asked for layers that can be unpacked."""
    from transformers import CompressedTensorsConfig, GPTQConfig

    if method == "compressed-tensors":
        return {"quantization_config": CompressedTensorsConfig(dequantize=True)}
    # The plain kernel; others repack the weights into forms of their own before the first pass.
    return {"quantization_config": GPTQConfig(bits=4, backend="torch")} if method == "gptq" else {}


def _dense(weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> nn.Linear:
    """An nn.Linear with this weight [out, in] and bias."""
    rows, columns = weight.shape
    layer = nn.Linear(columns, rows, bias=bias is not None, dtype=dtype, device=weight.device)
    with torch.no_grad():
        layer.weight.copy_(weight)
        if bias is not None:
            layer.bias.copy_(bias)
    return layer
