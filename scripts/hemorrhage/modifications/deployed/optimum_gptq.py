"""GPTQ through Optimum's GPTQQuantizer: the file that transformers' ``GPTQConfig`` writes.

The same format as ``gptqmodel_gptq``, whose solver Optimum calls, with Optimum's own pass over the blocks: every matrix
of a block is rounded after the ones before it, on the study's calibration tokens. Optimum 2.3 leaves two things wrong
that are put right here: it cannot write calibration tokens into its config (they are left out of it), and it names the
format ``gptq_v2`` in the config.json of a symmetric file whose zero points it wrote in the older form, one lower, so
that transformers reads every weight one step off. It costs a pass a matrix and sequence.

Frantar et al., GPTQ, 2022 (arXiv 2210.17323).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hemorrhage.methods import gptq_files
from hemorrhage.settings import Axis

NEEDS = frozenset({"calibration"})
AXIS = Axis("bits", harmless=None, rises=False, integer=True, unit="bits per weight")
NEUTRAL = None
EXAMPLE = {"bits": 4, "group": 32}
REPAIRS: tuple[str, ...] = ()
PACKAGES = ("gptqmodel", "optimum")
REQUIRES = PACKAGES

refuse = gptq_files.refuse
unsuited = gptq_files.unsuited


@dataclass(frozen=True)
class Settings(gptq_files.Settings):
    """The format, and the text on which the inputs are seen, with Optimum's default damping."""

    damping: float = 0.1


def apply(model, settings: Settings, data) -> dict[str, Any]:
    """Pack the model and put what the file stands for into the targets; returns the file's sizes and the error."""
    from hemorrhage.methods import packing

    effect = packing.through_file(model, data, lambda folder: pack(model, settings, data, folder), unsuited(model))
    return {"bits": settings.bits, **effect}


def pack(model, settings: Settings, data, folder) -> None:
    """Write the packed checkpoint of the model as it is. Raises ValueError if the group does not divide a width."""
    from hemorrhage.architecture import models, targets
    from hemorrhage.methods import packing

    gptq_files.require_widths(settings, model)
    gptq_files.library()
    from optimum.gptq import GPTQQuantizer

    # Rows of a batch of one: Optimum calls the model with them as they are.
    rows = [
        {name: row[None] for name, row in rows.items()} for rows in gptq_files.rows(data.tokens(settings.calibration))
    ]
    quantizer = GPTQQuantizer(
        bits=settings.bits,
        dataset=rows,
        group_size=settings.group or -1,
        damp_percent=settings.damping,
        desc_act=settings.act_order,
        act_group_aware=not settings.act_order and settings.group is not None,
        sym=settings.symmetric,
        block_name_to_quantize=targets.blocks(model)[0],
        backend="torch",
    )
    with packing.dense_folder(model, data) as dense, packing.scratch_directory():
        changed = quantizer.quantize_model(models.load(dense, data.dtype, data.device))
        quantizer.dataset = None
        changed.config.quantization_config["dataset"] = None
        quantizer.save(changed, str(folder))
    _correct_format(folder)


def _correct_format(folder) -> None:
    """Put into config.json, which transformers reads, the format that Optimum wrote into quantize_config.json."""
    from pathlib import Path

    from hemorrhage import files

    config = files.read_json(Path(folder) / "config.json")
    config["quantization_config"]["format"] = files.read_json(Path(folder) / "quantize_config.json")["format"]
    files.write_json(Path(folder) / "config.json", config)
