"""4 bits through bitsandbytes: the checkpoint of QLoRA and of transformers' ``load_in_4bit``.

Every weight goes to the nearest of 16 values, NF4 (quantiles of a normal distribution) or FP4 (a 4-bit float), with
one scale for 64 weights of the flattened matrix; with ``double_quantization`` the scales are themselves packed in 8
bits. No calibration; it costs one pass over the weights. ``nf4`` and ``fp4`` are this project's own, with any group.

Dettmers et al., QLoRA: Efficient Finetuning of Quantized LLMs, 2023 (arXiv 2305.14314).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hemorrhage.methods import quantization
from hemorrhage.settings import require

NEEDS: frozenset[str] = frozenset()
AXIS = None
NEUTRAL = None
EXAMPLE: dict[str, object] = {"table": "nf4"}
REPAIRS: tuple[str, ...] = ()
PACKAGES = ("bitsandbytes",)
REQUIRES = PACKAGES
TABLES = ("nf4", "fp4")


@dataclass(frozen=True)
class Settings:
    """The format.

    Attributes:
        table: "nf4" or "fp4".
        double_quantization: whether the scales are packed too.
    """

    table: str = "nf4"
    double_quantization: bool = False

    def __post_init__(self) -> None:
        require(self.table, TABLES, "table")
        quantization.flag("double_quantization", self.double_quantization)


def unsuited(model) -> str | None:
    """Return why the architecture cannot be served: weights that are no nn.Linear."""
    from hemorrhage.methods import packing

    return packing.other_than_linear(model, "bitsandbytes")


def apply(model, settings: Settings, data) -> dict[str, Any]:
    """Pack the model and put what the file stands for into the targets; returns the file's sizes and the error."""
    from hemorrhage.methods import packing

    return packing.through_file(model, data, lambda folder: pack(model, settings, data, folder), unsuited(model))


def pack(model, settings: Settings, data, folder) -> None:
    """Write the packed checkpoint of the model as it is."""
    from transformers import BitsAndBytesConfig

    from hemorrhage.methods import packing

    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=settings.table,
        bnb_4bit_use_double_quant=settings.double_quantization,
        llm_int8_skip_modules=packing.left_dense(model),
    )
    packing.save_by_transformers(model, data, config, folder)
