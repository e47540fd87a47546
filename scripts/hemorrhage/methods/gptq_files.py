"""What the two writers of GPTQ files share: settings, calibration rows, and GPTQModel's threads.

GPTQModel runs on a pool of worker threads of its own. It wants two or more; their number is what
``GPTQMODEL_CPU_WORKERS`` says, else the threads that torch was given, so that a job keeps to its share of the machine.
The same number of threads gives the same file. On its first run on a machine it compiles its packing kernel, which
takes a minute and a C++ compiler; without one it packs more slowly, to the same bytes.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hemorrhage.methods import packing, quantization
from hemorrhage.planning import local_config
from hemorrhage.settings import between, require, whole

if TYPE_CHECKING:
    from transformers import PreTrainedModel

WIDTHS = (2, 3, 4, 8)  # those that transformers reads back
GROUPS = (16, 32, 64, 128, 256, 512, 1024)  # those that its torch kernel unpacks, beside whole rows
MULTIPLE = 32  # weights that share the words of a packed column
WORKERS = "GPTQMODEL_CPU_WORKERS"
LEAST_WORKERS = 2
LIBRARY = "GPTQModel"


@dataclass(frozen=True)
class Settings:
    """The format of a GPTQ file, and the text on which the inputs are seen.

    Attributes:
        bits: 2, 3, 4 or 8.
        group: neighbours of a row that share a scale: 16, 32, 64 … 1024; None or 0 gives every output channel one.
        act_order: whether columns with large inputs are rounded first (``desc_act``).
        symmetric: whether all zero points are the middle of the grid.
        damping: share of the mean second moment that is added to all of them, 0.0001 to 0.99.
        calibration: name of the calibration set.
    """

    bits: int = 4
    group: int | None = 128
    act_order: bool = False
    symmetric: bool = True
    damping: float = 0.05
    calibration: str = "default"

    def __post_init__(self) -> None:
        """Raise ValueError naming the setting that is wrong."""
        object.__setattr__(self, "bits", whole("bits", self.bits, min(WIDTHS), max(WIDTHS)))
        if self.bits not in WIDTHS:
            raise ValueError(f"bits: {self.bits} is no width of a GPTQ file; there are 2, 3, 4 and 8.")
        packing.validate_group(self)
        if self.group is not None:
            require(self.group, GROUPS, "group")
        quantization.flag("act_order", self.act_order)
        quantization.flag("symmetric", self.symmetric)
        object.__setattr__(self, "damping", between("damping", self.damping, 1e-4, 0.99))


def refuse(settings: Settings, facts: dict[str, int]) -> None:
    """Raise ValueError if a width that a config.json tells cannot be packed, or the group does not divide it."""
    quantization.refuse_facts(settings.group, facts)
    for name, width in local_config.target_widths(facts).items():
        if width % MULTIPLE:
            raise ValueError(f"{name}: {width} is not a multiple of {MULTIPLE}, and GPTQ files pack so many at a time.")


def require_widths(settings: Settings, model: PreTrainedModel) -> None:
    """Raise ValueError if the rows of a target cannot be packed."""
    from hemorrhage.architecture import targets

    quantization.require_widths(settings.group, targets.find(model))


def unsuited(model: PreTrainedModel) -> str | None:
    """Return why GPTQ files cannot hold all targets: no nn.Linear, an unfit width, a bias of more digits."""
    import torch

    from hemorrhage.architecture import targets

    reason = packing.other_than_linear(model, LIBRARY)
    if reason:
        return reason
    for target in targets.find(model):
        narrow = next((w for w in (target.in_features, target.out_features) if w % MULTIPLE), None)
        if narrow is not None:
            return (
                f"{type(model).__name__}: {target.name} has a width of {narrow}, and GPTQ files pack multiples of "
                f"{MULTIPLE}."
            )
        bias: Any = target.module.bias
        # Any bias that a bfloat16 checkpoint brought is kept exactly, unless it is tiny.
        if bias is not None and not torch.equal(bias.half().to(bias.dtype), bias):
            return (
                f"{type(model).__name__}: the bias of {target.module_name} has more digits than half precision, in "
                "which GPTQ files hold biases."
            )
    return None


def rows(tokens: Any) -> list[dict[str, Any]]:
    """Return calibration tokens [N, L] as the libraries take them: one row a sequence, nothing masked."""
    import torch

    return [{"input_ids": row, "attention_mask": torch.ones_like(row)} for row in tokens.cpu()]


def library() -> Any:
    """Import GPTQModel with a pool as large as this process's share of the machine; returns the module."""
    import torch

    threads = torch.get_num_threads()
    os.environ.setdefault(WORKERS, str(max(LEAST_WORKERS, threads)))
    # Its pool has a model loader that asks for two workers and fails with one.
    os.environ[WORKERS] = str(max(LEAST_WORKERS, int(os.environ[WORKERS])))
    import gptqmodel

    torch.set_num_threads(threads)
    return gptqmodel
