"""8 bits through bitsandbytes: the checkpoint of LLM.int8() and of transformers' ``load_in_8bit``.

Every weight goes to the nearest of 255 points, with one scale for an output channel. What is measured is the file:
the kernels that serve it also quantise activations and keep outlier channels in half precision, which
``outlier_split`` and ``dynamic_activations`` simulate. It costs one pass over the weights. ``int8`` is this project's
own.

Dettmers et al., LLM.int8(), 2022 (arXiv 2208.07339).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

NEEDS: frozenset[str] = frozenset()
AXIS = None
NEUTRAL = None
EXAMPLE: dict[str, object] = {}
REPAIRS: tuple[str, ...] = ()
PACKAGES = ("bitsandbytes",)
REQUIRES = PACKAGES


@dataclass(frozen=True)
class Settings:
    """No settings: the format has none."""


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

    config = BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=packing.left_dense(model))
    packing.save_by_transformers(model, data, config, folder)
