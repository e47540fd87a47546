"""What the weight quantizers share: checks of settings, targets as one matrix, and the record of what was done."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from hemorrhage.methods.sizes import HALF, Sizes
from hemorrhage.planning import local_config
from hemorrhage.settings import whole

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from hemorrhage.architecture.targets import Target
    from hemorrhage.modification_data import ModificationData

TABLE_BITS, TABLE_SCALE_BITS = 4, 32  # of tables with 16 values as bitsandbytes stores them


def flag(name: str, value: object) -> bool:
    """Return ``value``; raises ValueError naming the setting if it is neither true nor false."""
    if not isinstance(value, bool):
        raise ValueError(f"{name}: {value!r} is neither true nor false.")
    return value


def validate_grid(settings: Any) -> None:
    """Check and settle ``bits``, ``symmetric`` and ``group`` of a frozen ``Settings``; group 0 becomes None."""
    object.__setattr__(settings, "bits", whole("bits", settings.bits, 2, 8))
    flag("symmetric", settings.symmetric)
    group = 0 if settings.group is None else whole("group", settings.group, 0)
    object.__setattr__(settings, "group", group or None)


def refuse_width(group: int | None, name: str, width: int) -> None:
    """Raise ValueError if groups of ``group`` neighbours do not divide the rows of ``name``."""
    if group is not None and width % group:
        raise ValueError(f"group: {group} does not divide the width {width} of {name}.")


def refuse_facts(group: int | None, facts: dict[str, int]) -> None:
    """Raise ValueError if the group does not divide a width that a config.json tells (``local_config.facts``)."""
    for name, width in local_config.target_widths(facts).items():
        refuse_width(group, name, width)


def require_widths(group: int | None, targets: Iterable[Target]) -> None:
    """Raise ValueError if the group does not divide the width of a target."""
    for target in targets:
        refuse_width(group, target.name, target.in_features)


def require_called(targets: Iterable[Target]) -> None:
    """Raise ValueError if the input of a target cannot be quantised or its weight is not finite, before any change."""
    from hemorrhage.methods.tensors import require_finite

    for target in targets:
        require_finite(target.weight, target.name)
        if not target.called:
            raise ValueError(f"{target.name}: no module call shows its input alone, so its input cannot be quantised.")


def short(values: Tensor) -> list[float]:
    """Return numbers with 6 digits, as attachments keep a vector: a model has hundreds of thousands of channels."""
    return [float(f"{value:.6g}") for value in values.tolist()]


def stack(targets: Sequence[Target]) -> Tensor:
    """Return the weights of targets that share an input as one float32 matrix [all outs, in], a copy.

    Rows do not depend on each other in any quantizer here, so one pass serves all. Raises ValueError if a value is not
    finite.
    """
    import torch

    from hemorrhage.methods.tensors import require_finite

    return torch.cat([require_finite(target.weight, target.name).float() for target in targets])


def peaks(model: PreTrainedModel, data: ModificationData, calibration: str) -> list[tuple[Sequence[Target], Tensor]]:
    """Return for every group of targets that share an input the largest |x| by channel [in], of the model as it is."""
    from hemorrhage.activations.calibration import walk
    from hemorrhage.methods.tensors import require_finite

    seen: list[tuple[Sequence[Target], Tensor]] = []

    def visit(group) -> None:
        peak = require_finite(group.absolute_max(), f"the inputs of {group.targets[0].name}")
        seen.append((group.targets, peak))

    walk(model, data.tokens(calibration), visit, chunk=data.chunk, statistics=("absolute_max",))
    return seen


class Writer:
    """Writes quantised weights and adds up their size and error.

    Args:
        model: the model that is quantised.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self.sizes = Sizes(model)
        self.targets = 0
        self.error = self.energy = 0.0

    def write(self, target: Target, quantized: Tensor, bits_per_weight: float) -> None:
        """Write ``quantized`` [out, in] to a target; it would take ``bits_per_weight``."""
        from hemorrhage.methods.tensors import relative_error

        error, energy = relative_error(target.weight, quantized)
        target.write(quantized)
        self.sizes.add(quantized.numel(), bits_per_weight)
        self.targets += 1
        self.error += error
        self.energy += energy

    def write_stack(
        self, targets: Sequence[Target], quantized: Tensor, bits_per_weight: float | Callable[[Target], float]
    ) -> None:
        """Write the rows of ``quantized`` [all outs, in] to the targets that ``stack`` was given."""
        rows = [target.out_features for target in targets]
        for target, part in zip(targets, quantized.split(rows), strict=True):
            self.write(target, part, bits_per_weight(target) if callable(bits_per_weight) else bits_per_weight)

    def achieved(self) -> dict[str, Any]:
        """Return size, counts and the relative error of the weights."""
        return {
            **self.sizes.achieved(),
            "targets": self.targets,
            "relative_error": (self.error / self.energy) ** 0.5 if self.energy else 0.0,
        }


def round_all(
    model: PreTrainedModel, rounded: Callable[[Tensor], Tensor], bits_per_weight: Callable[[Target], float]
) -> dict[str, Any]:
    """Replace every target's weight by ``rounded`` of it; returns size, counts and error.

    Raises ValueError if a value is not finite.
    """
    from hemorrhage.architecture import targets
    from hemorrhage.methods.tensors import require_finite

    writer = Writer(model)
    for target in targets.find(model):
        writer.write(target, rounded(require_finite(target.weight, target.name)), bits_per_weight(target))
    return writer.achieved()


def byte_size(target: Target, by_row: bool) -> float:
    """Return the bits per weight of 8-bit codes with one scale for every row, or one for the matrix."""
    scales = target.out_features if by_row else 1
    return 8 + HALF * scales / (target.out_features * target.in_features)
