"""4-bit weights through torchao: the checkpoint of transformers' ``TorchAoConfig(IntxWeightOnlyConfig(int4))``.

A symmetric or asymmetric grid of 16 levels, one scale for a group of neighbours in a row. torchao 0.18 can save this
grid on any device only with one byte a weight (for servers that pack it when they load it): 4-bit damage in an 8-bit
file, which ``bits_per_weight`` says. Its layouts with two weights a byte need a CUDA device or the package mslk, which
has no build for CPUs. No calibration; it costs one pass over the weights. ``rtn`` is this project's own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hemorrhage.methods import quantization
from hemorrhage.settings import whole

NEEDS: frozenset[str] = frozenset()
AXIS = None
NEUTRAL = None
EXAMPLE: dict[str, object] = {"group": 32}
REPAIRS: tuple[str, ...] = ()
PACKAGES = ("torchao",)
REQUIRES = PACKAGES


@dataclass(frozen=True)
class Settings:
    """The grid.

    Attributes:
        group: neighbours of a row that share a scale, 2 or more.
        symmetric: whether the grid has no zero points.
    """

    group: int = 64
    symmetric: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "group", whole("group", self.group, 2))
        quantization.flag("symmetric", self.symmetric)


def refuse(settings: Settings, facts: dict[str, int]) -> None:
    """Raise ValueError if the group does not divide a width, by what a config.json tells."""
    quantization.refuse_facts(settings.group, facts)


def unsuited(model) -> str | None:
    """Return why the architecture cannot be served: weights that are no nn.Linear."""
    from hemorrhage.methods import packing

    return packing.other_than_linear(model, "torchao")


def apply(model, settings: Settings, data) -> dict[str, Any]:
    """Pack the model and put what the file stands for into the targets; returns the file's sizes and the error."""
    from hemorrhage.methods import packing

    return packing.through_file(model, data, lambda folder: pack(model, settings, data, folder), unsuited(model))


def pack(model, settings: Settings, data, folder) -> None:
    """Write the packed checkpoint of the model as it is. Raises ValueError if the group does not divide a width."""
    import torch
    from torchao.quantization import IntxWeightOnlyConfig, PerGroup
    from torchao.quantization.quant_primitives import MappingType
    from transformers import TorchAoConfig

    from hemorrhage.architecture import targets
    from hemorrhage.methods import packing

    quantization.require_widths(settings.group, targets.find(model))
    grid = IntxWeightOnlyConfig(
        weight_dtype=getattr(torch, "int4"),  # noqa: B009 - torch makes its narrow types known at run time only
        granularity=PerGroup(settings.group),
        mapping_type=MappingType.SYMMETRIC if settings.symmetric else MappingType.ASYMMETRIC,
    )
    config = TorchAoConfig(grid, modules_to_not_convert=packing.left_dense(model))
    packing.save_by_transformers(model, data, config, folder)
