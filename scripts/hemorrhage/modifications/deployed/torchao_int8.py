"""8-bit weights through torchao: the checkpoint of transformers' ``TorchAoConfig(Int8WeightOnlyConfig())``.

Every weight goes to the nearest of 255 points, with one scale for an output channel or for the matrix. No calibration;
it costs one pass over the weights. ``int8`` is this project's own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hemorrhage.settings import require

NEEDS: frozenset[str] = frozenset()
AXIS = None
NEUTRAL = None
EXAMPLE: dict[str, object] = {"scale": "per_channel"}
REPAIRS: tuple[str, ...] = ()
PACKAGES = ("torchao",)
REQUIRES = PACKAGES
SCALES = ("per_channel", "per_tensor")


@dataclass(frozen=True)
class Settings:
    """The grid.

    Attributes:
        scale: "per_channel", one for every output channel, or "per_tensor".
    """

    scale: str = "per_channel"

    def __post_init__(self) -> None:
        require(self.scale, SCALES, "scale")


def unsuited(model) -> str | None:
    """Return why the architecture cannot be served: weights that are no nn.Linear."""
    from hemorrhage.methods import packing

    return packing.other_than_linear(model, "torchao")


def apply(model, settings: Settings, data) -> dict[str, Any]:
    """Pack the model and put what the file stands for into the targets; returns the file's sizes and the error."""
    from hemorrhage.methods import packing

    return packing.through_file(model, data, lambda folder: pack(model, settings, data, folder), unsuited(model))


def pack(model, settings: Settings, data, folder) -> None:
    """Write the packed checkpoint of the model as it is."""
    from torchao.quantization import Int8WeightOnlyConfig, PerRow, PerTensor
    from transformers import TorchAoConfig

    from hemorrhage.methods import packing

    granularity = PerRow() if settings.scale == "per_channel" else PerTensor()
    config = TorchAoConfig(
        Int8WeightOnlyConfig(granularity=granularity), modules_to_not_convert=packing.left_dense(model)
    )
    packing.save_by_transformers(model, data, config, folder)
