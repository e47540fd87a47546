"""AWQ: scale the input channels that matter up before rounding to nearest, and cut the range of every grid.

A channel's scale is mean|x|^r; r is searched on a grid of 20 points for every group of targets that share an input, by
the error of their outputs on calibration tokens; then every grid's range is searched (not of queries and keys, whose
product the outputs do not show). It costs one forward pass and some thirty products per target.

A deployed model folds 1/s into what makes the input, where it can. Here the weight is written as quantize(W·s)/s, which
gives the same outputs, needs no folding, and so scales every target: also those behind another matrix with fewer
heads, which a deployed model leaves alone. The scales count no bits.

Lin et al., AWQ: Activation-aware Weight Quantization, 2023 (arXiv 2306.00978).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hemorrhage.methods import quantization
from hemorrhage.settings import Axis, require

NEEDS = frozenset({"calibration"})
AXIS = Axis("bits", harmless=None, rises=False, integer=True, unit="bits per weight")
NEUTRAL = None
EXAMPLE = {"bits": 4}
REPAIRS: tuple[str, ...] = ()
ORDERS = ("linear", "block")
UNCLIPPED = ("q_", "k_", "query", "key", "qkv")  # parts of a module's name, as in the reference code


@dataclass(frozen=True)
class Settings:
    """The grid, and the text on which the inputs are seen.

    Attributes:
        bits: 2 to 8.
        symmetric: whether the grid is centred at 0, without zero points.
        group: neighbours of a row that share a grid; None or 0 gives every output channel one grid.
        clip: whether the ranges of the grids are searched too.
        calibration: name of the calibration set.
        order: "linear" (each target sees all quantised ones before it) or "block" (targets of one block see the dense
            block).
    """

    bits: int = 4
    symmetric: bool = False
    group: int | None = None
    clip: bool = True
    calibration: str = "default"
    order: str = "linear"

    def __post_init__(self) -> None:
        quantization.validate_grid(self)
        quantization.flag("clip", self.clip)
        require(self.order, ORDERS, "order")


def refuse(settings: Settings, facts: dict[str, int]) -> None:
    """Raise ValueError if the group does not divide a width, by what a config.json tells."""
    quantization.refuse_facts(settings.group, facts)


def apply(model, settings: Settings, data) -> dict[str, Any]:
    """Quantise every target while the calibration tokens run through the model once.

    Raises ValueError if the group does not divide a width, or if weights are not finite.
    """
    from hemorrhage.activations import calibration
    from hemorrhage.architecture import targets
    from hemorrhage.methods import awq_search, sizes, tensors

    quantization.require_widths(settings.group, targets.find(model))
    writer = quantization.Writer(model)
    ratios: list[float] = []
    error = energy = 0.0
    unseen = 0

    def rounded(weight):
        return tensors.quantize_rtn(weight, settings.bits, settings.symmetric, settings.group)

    def visit(group) -> None:
        nonlocal error, energy, unseen
        weight, gram, mean = quantization.stack(group.targets), group.gram(), group.absolute_mean()
        tensors.require_finite(gram, f"the inputs of {group.targets[0].name}")
        ratio, _ = awq_search.search_ratio(weight, gram, mean, rounded) if group.rows else (0.0, None)
        scale = awq_search.scales(mean, ratio)
        raised = weight * scale
        if settings.clip and group.rows:
            raised = _clipped(raised, group.targets, gram / scale.outer(scale), settings, rounded)
        quantized = rounded(raised).div_(scale)
        width = settings.group or weight.shape[1]
        writer.write_stack(group.targets, quantized, sizes.uniform(settings.bits, settings.symmetric, width))
        ratios.append(ratio)
        unseen += 0 if group.rows else len(group.targets)
        error += float(tensors.output_energy(quantized - weight, gram).sum())
        energy += float(tensors.output_energy(weight, gram).sum())

    calibration.walk(
        model,
        data.tokens(settings.calibration),
        visit,
        order=settings.order,
        chunk=data.chunk,
        statistics=("gram", "absolute_mean"),
    )
    return {
        "bits": settings.bits,
        **writer.achieved(),
        "output_error": (error / energy) ** 0.5 if energy else 0.0,
        "mean_ratio": sum(ratios) / len(ratios),
        "targets_without_tokens": unseen,
    }


def _clipped(raised, members, gram, settings: Settings, rounded):
    """The scaled weights of a group's targets, ranges cut where the name of a target does not forbid it."""
    import torch

    from hemorrhage.methods import awq_search

    parts = raised.split([target.out_features for target in members])
    free = [not any(part in target.module_name.rpartition(".")[2] for part in UNCLIPPED) for target in members]
    return torch.cat(
        [
            awq_search.clip(part, gram, settings.group or part.shape[1], rounded) if cut else part
            for part, cut in zip(parts, free, strict=True)
        ]
    )
