"""Round-to-nearest weights in the format compressed-tensors: what llm-compressor writes and vLLM serves.

A uniform grid by group or by output channel, codes packed into 32-bit words, scales (and packed zero points) beside
them. Scales come from the library's own rule for the extremes of a group, as llm-compressor's ``QuantizationModifier``
takes them without calibration; the file holds the same codes. It costs one pass over the weights. ``rtn`` is this
project's own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hemorrhage.methods import packing, quantization
from hemorrhage.settings import Axis

NEEDS: frozenset[str] = frozenset()
AXIS = Axis("bits", harmless=None, rises=False, integer=True, unit="bits per weight")
NEUTRAL = None
EXAMPLE = {"bits": 4, "group": 32}
REPAIRS: tuple[str, ...] = ()
PACKAGES = ("compressed-tensors",)
REQUIRES = PACKAGES


@dataclass(frozen=True)
class Settings:
    """The grid.

    Attributes:
        bits: 2 to 8; kernels of servers exist for 4 and 8.
        group: neighbours of a row that share a scale; None or 0 gives every output channel one.
        symmetric: whether the grid has no zero points.
    """

    bits: int = 4
    group: int | None = 128
    symmetric: bool = True

    def __post_init__(self) -> None:
        quantization.validate_grid(self)


def refuse(settings: Settings, facts: dict[str, int]) -> None:
    """Raise ValueError if the group does not divide a width, by what a config.json tells."""
    quantization.refuse_facts(settings.group, facts)


def unsuited(model) -> str | None:
    """Return why the architecture cannot be served: weights that are no nn.Linear."""
    return packing.other_than_linear(model, "compressed-tensors")


def apply(model, settings: Settings, data) -> dict[str, Any]:
    """Pack the model and put what the file stands for into the targets; returns the file's sizes and the error."""
    effect = packing.through_file(model, data, lambda folder: pack(model, settings, data, folder), unsuited(model))
    return {"bits": settings.bits, **effect}


def pack(model, settings: Settings, data, folder) -> None:
    """Write the packed checkpoint of the model as it is. Raises ValueError if the group does not divide a width."""
    from compressed_tensors.compressors import ModelCompressor
    from compressed_tensors.quantization import (
        QuantizationArgs,
        QuantizationConfig,
        QuantizationScheme,
        apply_quantization_config,
    )

    from hemorrhage.architecture import models, targets

    quantization.require_widths(settings.group, targets.find(model))
    grid = QuantizationArgs(
        num_bits=settings.bits,
        type="int",
        symmetric=settings.symmetric,
        strategy="group" if settings.group else "channel",
        group_size=settings.group,
    )
    config = QuantizationConfig(
        config_groups={"group_0": QuantizationScheme(targets=["Linear"], weights=grid)},
        ignore=packing.left_dense(model),
        quantization_status="frozen",
        format="pack-quantized",
    )
    with packing.dense_folder(model, data) as dense:
        changed = models.load(dense, data.dtype, data.device)
    apply_quantization_config(changed, config)
    for module in changed.modules():
        if getattr(module, "quantization_scheme", None) is not None:
            _set_scales(module, grid)
    compressor = ModelCompressor.from_pretrained_model(changed)
    compressor.compress_model(changed)
    changed.save_pretrained(folder)
    compressor.update_config(str(folder))


def _set_scales(module, grid) -> None:
    """Give a layer the scales and zero points that the library computes from the extremes of its groups."""
    from compressed_tensors.quantization.utils import calculate_qparams

    groups = module.weight.unflatten(1, (-1, grid.group_size or module.weight.shape[1]))
    scale, zero_point = calculate_qparams(groups.amin(-1), groups.amax(-1), grid)
    module.weight_scale.data.copy_(scale)
    if not grid.symmetric:
        module.weight_zero_point.data.copy_(zero_point)
