"""Statistics of a shared input, summed over chunks, and the *group* of targets that share it."""

from __future__ import annotations

import dataclasses

import torch

from hemorrhage.architecture.targets import Target
from hemorrhage.settings import require

STATISTICS = ("mean", "square_mean", "gram", "absolute_max", "absolute_mean", "samples")
PANEL = 192  # columns of a Gram matrix that a CPU computes at a time
SLICE = 8192  # rows that are cast to float32 at a time: a whole calibration batch would double the peak memory


class Statistics:
    """Sums over the rows of an input [..., in]; each is kept only if it is wanted.

    Matrices are summed in float32, vectors in float64, so that chunks and one pass agree.
    """

    def __init__(self, width: int, wanted: tuple[str, ...], device: torch.device) -> None:
        self.rows = 0
        self.width = width
        self.kept: list[torch.Tensor] = []
        self.sums: dict[str, torch.Tensor] = {}
        for name in wanted:
            require(name, STATISTICS, "statistic")
            shape = (width, width) if name == "gram" else (width,)
            dtype = torch.float32 if name in ("gram", "absolute_max") else torch.float64
            self.sums[name] = torch.zeros(shape, dtype=dtype, device=device)

    def add(self, x: torch.Tensor) -> None:
        """Take the rows of ``x`` [..., in] in, in any float dtype."""
        x = x.detach().reshape(-1, self.width)
        self.rows += x.shape[0]
        if "samples" in self.sums:
            self.kept.append(x.clone())
        for part in x.split(SLICE):
            self._add(part.float())

    def _add(self, x: torch.Tensor) -> None:
        if "mean" in self.sums:
            self.sums["mean"] += x.sum(0, dtype=torch.float64)
        if "square_mean" in self.sums:
            self.sums["square_mean"] += x.square().sum(0, dtype=torch.float64)
        if "gram" in self.sums:
            _add_products(self.sums["gram"], x)
        if "absolute_mean" in self.sums:
            self.sums["absolute_mean"] += x.abs().sum(0, dtype=torch.float64)
        if "absolute_max" in self.sums and len(x):
            torch.maximum(self.sums["absolute_max"], x.abs().amax(0), out=self.sums["absolute_max"])


@dataclasses.dataclass(eq=False)
class Group:
    """Targets that share one input, and what is known of the input.

    Only the statistics that ``walk`` was asked for can be read; another one raises ValueError.

    Attributes:
        targets: the targets, in the order in which they run.
        block: index of their block.
        producer: path of the norm whose output is exactly the input and is read by these targets alone, else None.
        statistics: the sums.
    """

    targets: tuple[Target, ...]
    block: int
    producer: str | None
    statistics: Statistics

    @property
    def rows(self) -> int:
        """Number of tokens seen; 0 for an expert that nobody chose: then every mean is 0 and says nothing."""
        return self.statistics.rows

    def mean(self) -> torch.Tensor:
        """Mean of x per input channel, [in] float32."""
        return self._mean("mean")

    def square_mean(self) -> torch.Tensor:
        """Mean of x² per input channel, [in] float32."""
        return self._mean("square_mean")

    def gram(self) -> torch.Tensor:
        """Mean of x xᵀ, [in, in] float32."""
        upper = self._mean("gram").triu_()
        return upper.add_(upper.triu(1).T)

    def absolute_max(self) -> torch.Tensor:
        """Largest |x| per input channel, [in] float32."""
        return self._sum("absolute_max").clone()

    def absolute_mean(self) -> torch.Tensor:
        """Mean of |x| per input channel, [in] float32."""
        return self._mean("absolute_mean")

    def samples(self) -> torch.Tensor:
        """A copy of the input, [rows, in] in the model's dtype; not in the chunked form."""
        self._sum("samples")
        return torch.cat(self.statistics.kept)

    def _mean(self, name: str) -> torch.Tensor:
        return (self._sum(name) / max(self.rows, 1)).float()

    def _sum(self, name: str) -> torch.Tensor:
        require(name, self.statistics.sums, "statistic of this walk")
        return self.statistics.sums[name]


def _add_products(gram: torch.Tensor, x: torch.Tensor) -> None:
    """Add xᵀx to ``gram`` [in, in], of which only the upper triangle is read: on a CPU that saves up to half."""
    panel = PANEL if x.device.type == "cpu" else gram.shape[0]
    for start in range(0, len(gram), panel):
        columns = slice(start, min(start + panel, len(gram)))
        gram[columns, start:].addmm_(x[:, columns].T, x[:, start:])
