"""GPTQ through GPTQModel: the packed checkpoint that vLLM, SGLang and transformers serve.

The library rounds the columns of a weight one after the other so that later ones make up for the error on the study's
calibration tokens, and packs codes, zero points and half-precision scales. The file is read back as transformers reads
it. Without ``act_order`` the library orders columns inside and between groups by activation (its default, "group
aware"). It costs one pass a layer and sequence, and some seconds to import. ``gptq`` is this project's own, at any
width and on any architecture.

Frantar et al., GPTQ, 2022 (arXiv 2210.17323); GPTQModel, the successor of AutoGPTQ.
"""

from __future__ import annotations

from typing import Any

from hemorrhage.methods import gptq_files
from hemorrhage.settings import Axis

NEEDS = frozenset({"calibration"})
AXIS = Axis("bits", harmless=None, rises=False, integer=True, unit="bits per weight")
NEUTRAL = None
EXAMPLE = {"bits": 4, "group": 32}
REPAIRS: tuple[str, ...] = ()
PACKAGES = ("gptqmodel", "optimum")  # transformers reads GPTQ files through Optimum
REQUIRES = PACKAGES

Settings = gptq_files.Settings
refuse = gptq_files.refuse
unsuited = gptq_files.unsuited


def apply(model, settings: Settings, data) -> dict[str, Any]:
    """Pack the model and put what the file stands for into the targets; returns the file's sizes and the error."""
    from hemorrhage.methods import packing

    effect = packing.through_file(model, data, lambda folder: pack(model, settings, data, folder), unsuited(model))
    return {"bits": settings.bits, **effect}


def pack(model, settings: Settings, data, folder) -> None:
    """Write the packed checkpoint of the model as it is. Raises ValueError if the group does not divide a width."""
    import torch

    from hemorrhage.methods import packing

    gptq_files.require_widths(settings, model)
    library, rows = gptq_files.library(), gptq_files.rows(data.tokens(settings.calibration))
    config = library.QuantizeConfig(
        bits=settings.bits,
        group_size=settings.group or -1,
        desc_act=settings.act_order,
        act_group_aware=not settings.act_order and settings.group is not None,
        sym=settings.symmetric,
        damp_percent=settings.damping,
        offload_to_disk=False,
    )
    with packing.dense_folder(model, data) as dense, packing.scratch_directory():
        # Its default would round everything that is not packed to bfloat16.
        packing_model = library.GPTQModel.load(
            str(dense), config, dtype=getattr(torch, data.dtype), device=data.device, backend="gptq_torch"
        )
        packing_model.quantize(rows, batch_size=1, backend="gptq_torch")
        packing_model.save(str(folder))
