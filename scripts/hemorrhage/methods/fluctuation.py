"""FLAP's score and its cut while the calibration tokens run: fluctuation of a unit, and the bias that stands for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from hemorrhage.architecture.coupling import Structure
from hemorrhage.methods import structured, tensors

if TYPE_CHECKING:
    from hemorrhage.activations.inputs import Group


def scores(weight: Tensor, mean: Tensor, square_mean: Tensor, columns: Tensor, squared: bool) -> Tensor:
    """Return the weighted fluctuation of every unit, [units] float32.

    Args:
        weight: [out, in] of the matrix that reads the units.
        mean: [in] mean of its input.
        square_mean: [in] mean of its squared input.
        columns: [units, k] columns of every unit.
        squared: whether channels are squared before they are summed over a unit (heads).
    """
    variance = (square_mean - mean.square()).clamp_(min=0)
    by_channel = variance * weight.float().square().sum(0)
    return (by_channel.square() if squared else by_channel)[columns].sum(1)


class Cutter:
    """Chooses the units that go when their reader's input is seen, and silences them at once.

    Readers after it see what the model without these units makes. Zero columns stand for the cut that follows.

    Args:
        structures: the structures of the model.
        numbers: units that go from every block, by kind.
    """

    def __init__(self, structures: Sequence[Structure], numbers: Mapping[str, int]) -> None:
        self.numbers = numbers
        self.removed: list[list[int]] = [[] for _ in structures]
        self.places = {structure.reader.name: (place, structure) for place, structure in enumerate(structures)}

    def visit(self, group: Group) -> None:
        """Choose and silence the units that the group's target reads, if it is the reader of a structure."""
        for target in group.targets:
            if target.name not in self.places:
                continue
            place, structure = self.places[target.name]
            mean, weight = group.mean(), target.weight
            found = scores(
                weight, mean, group.square_mean(), structure.columns.to(mean.device), squared=structure.kind == "heads"
            )
            tensors.require_finite(found, f"the scores of {target.name}")
            self.removed[place] = structured.lowest(found, self.numbers[structure.kind])
            gone = structure.columns[self.removed[place]].flatten().to(weight.device)
            bias = getattr(target.module, "bias", None)
            if bias is not None:
                bias.data += (weight[:, gone].float() @ mean[gone]).to(bias.dtype)
            target.write(weight.index_fill(1, gone, 0))
