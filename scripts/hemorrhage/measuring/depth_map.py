"""Damage by place and length of a cut, from stored inputs of the blocks: what lies before a cut is never run again.

One pass keeps the input of every block with the rest of what the model hands it (masks, rotary positions). A cell then
calls blocks directly: for the removal of blocks s to e − 1 those from e on, with the input of s; for their repetition s
to e − 1 on the input of e, then those from e on. What the model does after its blocks is the model's own: it runs with
every block handing on, the last one the cell's stream. The control runs the last blocks as they are and must give 0.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from hemorrhage.analysis.statistics import mean_interval
from hemorrhage.architecture.head import Head, hidden_states
from hemorrhage.architecture.targets import blocks
from hemorrhage.corpus.tokens import TokenSet
from hemorrhage.measuring import divergence
from hemorrhage.measuring.residuals import hidden_of
from hemorrhage.records import Metric

KINDS = ("removal", "repetition")


@dataclasses.dataclass(frozen=True)
class Cell:
    """One cut.

    Attributes:
        kind: "removal" or "repetition".
        start: first block of it.
        length: number of blocks.
        kl: [W] sum of KL over the scored tokens of each window, in nats.
        delta_nll: [W] sum of the change of the loss, in nats.
    """

    kind: str
    start: int
    length: int
    kl: np.ndarray
    delta_nll: np.ndarray


@dataclasses.dataclass(frozen=True)
class DepthMap:
    """All cells of a model.

    Attributes:
        cells: the cuts.
        control: largest KL of blocks that run as they are.
        counts: [W] number of scored tokens.
        depth: number of blocks.
    """

    cells: list[Cell]
    control: float
    counts: np.ndarray
    depth: int


@torch.no_grad()
def measure(
    model: PreTrainedModel, tokens: TokenSet, windows: int, length: int, lengths: Sequence[int], repeated: Sequence[int]
) -> DepthMap:
    """Cut the model everywhere, on the first ``length`` tokens of the first ``windows`` windows.

    Args:
        model: any supported causal LM; it is left as it was.
        tokens: the windows.
        windows: number of windows.
        length: tokens of each.
        lengths: lengths of removed ranges.
        repeated: lengths of repeated ranges.
    """
    run = _Run(model, tokens, windows, length)
    depth = len(run.layers)
    cells = []
    for kind, wanted in zip(KINDS, (lengths, repeated), strict=True):
        for count in sorted({count for count in wanted if count < depth or kind == "repetition"}):
            for start in range(depth - count + 1):
                cells.append(Cell(kind, start, count, *run.cut(kind, start, start + count)))
    control = max(float(np.abs(part).max()) for part in run.damage(run.through(depth // 2, range(depth // 2, depth))))
    return DepthMap(cells, control, run.counts, depth)


def metrics(found: DepthMap, index: np.ndarray) -> list[Metric]:
    """Return KL and change of the loss of every cell: ``removal_kl.03.1`` is block 3 removed, alone."""
    n, windows = int(found.counts.sum()), len(found.counts)
    depth = float(found.depth)
    listed = [
        Metric("depth", depth, 0.0, depth, depth, n, windows, "blocks", None),
        Metric("depth_map_control", found.control, 0.0, found.control, found.control, n, windows, "nats"),
    ]
    for cell in found.cells:
        place = f"{cell.start:02d}.{cell.length}"
        kl = mean_interval(cell.kl, found.counts, index, (0.0, float("inf")))
        change = mean_interval(cell.delta_nll, found.counts, index)
        listed.append(Metric.of(f"{cell.kind}_kl.{place}", kl, "nats"))
        listed.append(Metric.of(f"{cell.kind}_delta_nll.{place}", change, "nats"))
    return listed


def arrays(found: DepthMap) -> dict[str, np.ndarray]:
    """Return the sums of every window: ``removal`` and ``repetition`` [cells, (start, length)], ``*_kl`` [cells, W]."""
    result = {"count": found.counts}
    for kind in KINDS:
        cells = [cell for cell in found.cells if cell.kind == kind]
        result[kind] = np.array([(cell.start, cell.length) for cell in cells], dtype=np.int64).reshape(-1, 2)
        result[f"{kind}_kl"] = np.array([cell.kl for cell in cells]).reshape(-1, len(found.counts))
        result[f"{kind}_delta_nll"] = np.array([cell.delta_nll for cell in cells]).reshape(-1, len(found.counts))
    return result


class _Run:
    """The windows through the model once, with what is needed to go on from any block."""

    def __init__(self, model: PreTrainedModel, tokens: TokenSet, windows: int, length: int) -> None:
        self.model, self.layers, self.head = model, blocks(model)[1], Head.of(model)
        self.ids = torch.as_tensor(tokens.tokens[:windows, :length], dtype=torch.long, device=model.device)
        self.scored = torch.as_tensor(tokens.scored[:windows, 1:length], device=model.device)
        self.counts = tokens.scored[:windows, :length].sum(1).astype(np.float64)
        self.inputs: list[Tensor] = []
        self.given: list[tuple[tuple, dict[str, Any]]] = []
        self.sizes: list[int | None] = []
        with contextlib.ExitStack() as stack:
            for layer in self.layers:
                stack.callback(layer.register_forward_pre_hook(self._keep, with_kwargs=True).remove)
                stack.callback(layer.register_forward_hook(self._note).remove)
            hidden = hidden_states(model, self.ids)
        self.logits = self.head(hidden[:, :-1][self.scored])  # made once for all cells

    def cut(self, kind: str, start: int, end: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the sums [W] of KL and of the change of the loss with blocks start to end - 1 removed or repeated."""
        depth = len(self.layers)
        if kind == "removal":
            return self.damage(self.through(start, range(end, depth)))
        return self.damage(self.through(end, [*range(start, end), *range(end, depth)]))

    def through(self, place: int, order: Sequence[int]) -> Tensor:
        """Return the input of the output embedding after blocks ``order`` have run on the input of block ``place``."""
        hidden = self.inputs[place] if place < len(self.inputs) else self.last
        hidden = hidden.clone()
        for index in order:
            args, kwargs = self.given[index]
            hidden = hidden_of(self.layers[index](hidden, *args, **kwargs))
        with contextlib.ExitStack() as stack:
            for index, layer in enumerate(self.layers):
                is_last = index == len(self.layers) - 1
                stack.enter_context(_replaced(layer, _hand_on(self.sizes[index], hidden if is_last else None)))
            return hidden_states(self.model, self.ids)

    def damage(self, hidden: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Return the sums [W] of KL and of the change of the loss at the scored tokens."""
        rows, targets = hidden[:, :-1][self.scored], self.ids[:, 1:][self.scored]
        places = torch.arange(len(rows), device=rows.device)
        found = divergence.compare_hidden(lambda place: self.logits[place], places, self.head, rows, targets)
        windows = self.scored.nonzero()[:, 0].cpu().numpy()
        size = len(self.counts)
        delta = found["nll"].double() - found["reference_nll"].double()
        kl, change = (
            np.bincount(windows, weights=values.double().cpu().numpy(), minlength=size)
            for values in (found["kl"], delta)
        )
        return kl, change

    def _keep(self, _module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        rest = {name: value for name, value in kwargs.items() if name != "hidden_states"}
        self.inputs.append((args[0] if args else kwargs["hidden_states"]).clone())
        self.given.append((args[1:], rest))

    def _note(self, _module: nn.Module, _args: tuple, out: object) -> None:
        self.sizes.append(None if isinstance(out, Tensor) else len(out))  # type: ignore[arg-type]
        self.last = hidden_of(out).clone()


@contextlib.contextmanager
def _replaced(module: nn.Module, forward: Callable) -> Iterator[None]:
    """Let a module run ``forward`` instead of its own."""
    before = vars(module).get("forward")
    module.forward = forward
    try:
        yield
    finally:
        if before is None:
            del module.forward
        else:
            module.forward = before


def _hand_on(size: int | None, instead: Tensor | None) -> Callable:
    """What stands in for a block: it gives its input back, or ``instead``, in the form of the block's own output."""

    def forward(hidden_states: Tensor, *_args: object, **_kwargs: object) -> object:
        hidden = hidden_states if instead is None else instead
        return hidden if size is None else (hidden, *[None] * (size - 1))

    return forward
