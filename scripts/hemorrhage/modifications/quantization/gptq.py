"""GPTQ: round the columns of a weight one after the other, and let the later ones make up for the error.

The error that counts is that of the outputs on calibration tokens, in one forward pass; targets see the inputs that
the quantised ones before them make. Channels that were never active are rounded to nearest (the reference code sets
their weights to 0), and so is an expert that no calibration token reached; their number is recorded. The damping of the
inputs' second moments is raised until they can be inverted, and the largest one used is recorded.

Grids are those of ``rtn``. Columns with large inputs come first, on grids that were fitted before: with 3 bits in
groups of 64 that lost less on the default model than columns as they stand (the paper's first form, act_order and
static_groups false). There a group's grid is fitted when its turn comes, to weights that hold the corrections of all
columns before it; the reference code leaves out those of its current block of 128. In a packed file act_order without
static_groups needs an index for every column, which is counted.

Frantar et al., GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers, 2022 (arXiv
2210.17323).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hemorrhage.methods import quantization
from hemorrhage.settings import Axis, between, require

NEEDS = frozenset({"calibration"})
AXIS = Axis("bits", harmless=None, rises=False, integer=True, unit="bits per weight")
NEUTRAL = None
EXAMPLE = {"bits": 4}
REPAIRS: tuple[str, ...] = ()
ORDERS = ("linear", "block")


@dataclass(frozen=True)
class Settings:
    """The grid, the order of the columns, and the text on which the inputs are seen.

    Attributes:
        bits: 2 to 8.
        symmetric: whether the grid is centred at 0, without zero points.
        group: neighbours of a row that share a grid; None or 0 gives every output channel one grid.
        act_order: whether columns with large inputs are rounded first.
        static_groups: whether groups are of neighbours and fitted before anything is rounded; else, with act_order, of
            columns that are rounded one after the other.
        damping: share of the mean second moment that is added to all of them, 0 to 1.
        calibration: name of the calibration set.
        order: "linear" (each target sees all quantised ones before it) or "block" (targets of one block see the dense
            block).
    """

    bits: int = 4
    symmetric: bool = False
    group: int | None = None
    act_order: bool = True
    static_groups: bool = True
    damping: float = 0.01
    calibration: str = "default"
    order: str = "linear"

    def __post_init__(self) -> None:
        quantization.validate_grid(self)
        quantization.flag("act_order", self.act_order)
        quantization.flag("static_groups", self.static_groups)
        object.__setattr__(self, "damping", between("damping", self.damping, 0, 1))
        require(self.order, ORDERS, "order")


def refuse(settings: Settings, facts: dict[str, int]) -> None:
    """Raise ValueError if the group does not divide a width, by what a config.json tells."""
    quantization.refuse_facts(settings.group, facts)


def apply(model, settings: Settings, data) -> dict[str, Any]:
    """Quantise every target while the calibration tokens run through the model once.

    Raises ValueError if the group does not divide a width, or if weights or inputs are not finite.
    """
    from hemorrhage.activations import calibration
    from hemorrhage.architecture import targets
    from hemorrhage.methods import gptq_rounding, tensors

    quantization.require_widths(settings.group, targets.find(model))
    options = gptq_rounding.Options(
        settings.bits, settings.symmetric, settings.group, settings.act_order, settings.static_groups
    )
    writer = quantization.Writer(model)
    most = settings.damping
    unseen, dead = 0, 0
    error = energy = 0.0

    def visit(group) -> None:
        nonlocal most, unseen, dead, error, energy
        gram = group.gram()
        weight = quantization.stack(group.targets)
        try:
            quantized, errors, damping = gptq_rounding.quantize(weight, gram, options, settings.damping)
        except ValueError as reason:
            raise ValueError(f"{group.targets[0].name}: {reason}") from None
        writer.write_stack(group.targets, quantized, lambda target: _bits_per_weight(settings, target))
        most = max(most, damping)
        unseen += 0 if group.rows else len(group.targets)
        dead += int((gram.diagonal() == 0).sum()) if group.rows else 0
        if group.rows:
            error += float(errors.sum())
            energy += float(tensors.output_energy(weight, gram).sum())

    calibration.walk(
        model, data.tokens(settings.calibration), visit, order=settings.order, chunk=data.chunk, statistics=("gram",)
    )
    return {
        "bits": settings.bits,
        **writer.achieved(),
        "output_error": (error / energy) ** 0.5 if energy else 0.0,
        "largest_damping": most,
        "targets_without_tokens": unseen,
        "inactive_channels": dead,
    }


def _bits_per_weight(settings: Settings, target) -> float:
    """Codes and scales, and where columns are out of order a matrix's own index of their groups."""
    from hemorrhage.methods import sizes

    indexed = settings.group and settings.act_order and not settings.static_groups
    grid = sizes.uniform(settings.bits, settings.symmetric, settings.group or target.in_features)
    return grid + (sizes.INDEX / target.out_features if indexed else 0)
