"""FLAP: remove channels and heads whose output hardly fluctuates, and put their mean into a bias.

A unit is worth the variance of its inputs on calibration tokens times the squared norm of the columns that read it
("WIFV"); a head that shares keys and values is worth the sum of the squares of its channels, as in the authors' code.
What a removed unit gave on average is added to the bias of the matrix that read it, where the config can say that there
is one (Llama); the others are listed as ``uncompensated``. Configs of transformers have one width for all blocks, so
every block loses the same number, as in FLAP's "UL-MM"; the published default spreads it over blocks. It costs one
forward pass over the calibration tokens; the model gets smaller and faster.

An et al., Fluctuation-based Adaptive Structured Pruning for Large Language Models, 2023 (arXiv 2312.11983).
"""

from __future__ import annotations

from typing import Any

from hemorrhage.methods import structured
from hemorrhage.settings import Axis

NEEDS = frozenset({"calibration"})
AXIS = Axis("ratio", harmless=0, unit="share of block weights")
NEUTRAL = {"ratio": 0}
EXAMPLE = {"ratio": 0.3, "structures": "channels"}
REPAIRS: tuple[str, ...] = ()
CHANGES = "widths"

Settings = structured.Settings
unsuited = structured.unsuited


def apply(model, settings: Settings, data) -> dict[str, Any]:
    """Cut the units of least fluctuation; returns which, and the weights before and after.

    Raises ValueError if the architecture has no such units or its config cannot say the new widths.
    """
    from hemorrhage.activations import calibration
    from hemorrhage.architecture import coupling, widths
    from hemorrhage.methods import fluctuation

    if (reason := unsuited(model)) is not None:
        raise ValueError(reason)
    if not settings.ratio:
        return structured.nothing()
    kinds = structured.STRUCTURES[settings.structures]
    structures = coupling.find(model, kinds)
    numbers = coupling.plan(model, settings.ratio, kinds, settings.multiple)
    widths.require_possible(model, structures, numbers)
    before = widths.counts(model)
    compensated = widths.biased(model, [structure.reader for structure in structures])
    cutter = fluctuation.Cutter(structures, numbers)
    calibration.walk(
        model, data.tokens(settings.calibration), cutter.visit, chunk=data.chunk, statistics=("mean", "square_mean")
    )
    widths.cut(model, structures, cutter.removed)
    record = structured.achieved(structures, cutter.removed, before, widths.counts(model))
    missing = [structure.reader.name for structure in structures if structure.reader.name not in compensated]
    return {**record, "uncompensated": missing}
