"""Single blocks of a variant in the reference: what each does on its own, and what the rest makes of it.

The reference runs a window once and the input of each of its blocks is kept. Swapping block ℓ then runs the variant's
block on that input and the reference's blocks after it: the blocks before ℓ hand their input on and cost nothing. What
is measured:

- the *injected* error: right after the swapped block, relative to the reference's stream there;
- the *end* error: after the last block; above the injected one the reference amplifies it, below it damps it;
- the damage: KL of the reference's predictions against those with the swapped block, over the whole vocabulary.

The control swaps blocks of the reference for themselves and must give exactly 0. The *additivity* is the sum of the
single damages over the damage of the whole variant: below 1 blocks hurt each other, above 1 damage saturates.

Only a block that exactly one block of the variant copies can be swapped. Activation quantizers on a block's targets
come with it; what the variant changes outside its blocks shows in the whole only.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from hemorrhage.analysis.statistics import Estimate, mean_interval
from hemorrhage.architecture.head import Head, hidden_states
from hemorrhage.architecture.targets import blocks
from hemorrhage.corpus.tokens import TokenSet
from hemorrhage.measuring import divergence
from hemorrhage.measuring.residuals import distances, energy_ratio, hidden_of, root, watched, window_of
from hemorrhage.records import Metric

POSITIVE = (0.0, float("inf"))
NOTHING = Estimate(float("nan"), float("nan"), float("nan"), float("nan"), 0, 0)


@dataclasses.dataclass(frozen=True)
class Swaps:
    """Sums over the scored tokens of each window [W], one row per swapped block.

    Attributes:
        blocks: [n] index of the swapped block.
        complete: True if every block of the reference was swapped and the variant has no others.
        kl: [n, W] in nats.
        injected: [n, W] of ‖h − h_r‖² after the swapped block.
        injected_energy: [n, W] of ‖h_r‖² there.
        end: [n, W] of ‖h − h_r‖² after the last block.
        end_energy: [W] of ‖h_r‖² there.
        whole: [W] KL of the variant itself, in nats.
        control: largest sum of KL or of an error over a window, of blocks that were swapped for themselves.
        counts: [W] number of scored tokens.
    """

    blocks: list[int]
    complete: bool
    kl: np.ndarray
    injected: np.ndarray
    injected_energy: np.ndarray
    end: np.ndarray
    end_energy: np.ndarray
    whole: np.ndarray
    control: float
    counts: np.ndarray


def budget(tokens: TokenSet, total: int, length: int) -> tuple[int, int]:
    """Return (windows, length) of at most about ``total`` tokens: the first ``length`` tokens of the first windows.

    Where a protocol scores nothing in the first ``length`` tokens, whole windows are taken. At least one window is.
    """
    length = min(length, tokens.tokens.shape[1])
    if not tokens.scored[:, :length].any():
        length = tokens.tokens.shape[1]
    return min(max(1, total // length), len(tokens.tokens)), length


def one_to_one(copied: Sequence[int | None]) -> dict[int, int]:
    """Return reference block -> the only block of the variant that copies it, in the reference's order."""
    listed = list(copied)
    found = {source: place for place, source in enumerate(listed) if source is not None and listed.count(source) == 1}
    return dict(sorted(found.items()))


@torch.no_grad()
def swap(
    reference: PreTrainedModel,
    model: PreTrainedModel,
    tokens: TokenSet,
    copied: Sequence[int | None],
    windows: int,
    length: int,
    vocabulary: int | None = None,
) -> Swaps:
    """Swap every block that can be swapped, on the first ``length`` tokens of the first ``windows`` windows.

    Args:
        reference: the unchanged model; it is left as it was.
        model: the variant; where a block is swapped its residual stream has the reference's width.
        tokens: the windows.
        copied: for every block of the variant the reference's block, from ``residuals.sources``.
        windows: number of windows.
        length: tokens of each.
        vocabulary: see ``divergence.compare_hidden``.
    """
    depth, layers, pairs = len(blocks(reference)[1]), blocks(model)[1], one_to_one(copied)
    sums = np.zeros((4, len(pairs), windows))
    end_energy, whole, control = np.zeros(windows), np.zeros(windows), 0.0
    for window in range(windows):
        run = _Run(reference, *window_of(tokens, window, reference.device, length), vocabulary)
        end_energy[window] = float(run.rows[-1].double().square().sum())
        whole[window] = run.damage(Head.of(model), hidden_states(model, run.ids))
        for row, (block, place) in enumerate(pairs.items()):
            sums[:, row, window] = run.swapped(block, layers[place])
        for block in sorted({0, depth // 2, depth - 1}):
            own = run.swapped(block, run.layers[block])
            control = max(control, own[0], own[1], own[3])
    kl, injected, energy, end = sums
    counts = tokens.scored[:windows, :length].sum(1).astype(np.float64)
    return Swaps(
        list(pairs), len(pairs) == depth == len(layers), kl, injected, energy, end, end_energy, whole, control, counts
    )


def metrics(found: Swaps, index: np.ndarray | None) -> list[Metric]:
    """Return damage, injected and end error of every swapped block, their additivity and the control.

    Args:
        found: what ``swap`` gave.
        index: [R, W] resampling indices of its windows; None for Student's t.
    """
    n, windows = int(found.counts.sum()), len(found.counts)
    number = float(len(found.blocks))
    listed = [
        Metric("swap_blocks", number, 0.0, number, number, n, windows, "blocks", None),
        Metric("swap_control", found.control, 0.0, found.control, found.control, n, windows, "nats"),
        Metric.of("swap_whole_kl", mean_interval(found.whole, found.counts, index, POSITIVE), "nats"),
        Metric.of("swap_additivity", _additivity(found, n, index), "", higher_is_better=None),
    ]
    for row, block in enumerate(found.blocks):
        injected = energy_ratio(found.injected[row], found.injected_energy[row], n, index)
        end = energy_ratio(found.end[row], found.end_energy, n, index)
        listed += [
            Metric.of(f"swap_kl.{block:02d}", mean_interval(found.kl[row], found.counts, index, POSITIVE), "nats"),
            Metric.of(f"swap_injected.{block:02d}", root(injected), ""),
            Metric.of(f"swap_end_error.{block:02d}", root(end), ""),
        ]
    return listed


class _Run:
    """One window through the reference, with what is needed to start again at any block."""

    def __init__(
        self, reference: PreTrainedModel, ids: torch.Tensor, scored: torch.Tensor, vocabulary: int | None
    ) -> None:
        self.reference, self.ids, self.scored, self.vocabulary = reference, ids, scored, vocabulary
        self.layers, self.head = blocks(reference)[1], Head.of(reference)
        self.inputs: list[torch.Tensor] = []
        self.rows: list[torch.Tensor] = []
        self.sizes: list[int | None] = []
        with contextlib.ExitStack() as stack:
            for layer in self.layers:
                stack.callback(layer.register_forward_pre_hook(self._keep_input, with_kwargs=True).remove)
                stack.callback(layer.register_forward_hook(self._keep_output).remove)
            hidden = hidden_states(reference, ids)
        self.logits = self.head(hidden[0, :-1][scored[1:]])  # made once for all swaps

    def swapped(self, block: int, module: nn.Module) -> tuple[float, float, float, float]:
        """Return the sums of KL, ‖injected error‖², ‖h_r‖² there and ‖end error‖² with ``module`` as one block."""
        last = len(self.layers) - 1
        seen: dict[int, list[float]] = {}
        # The reference's own block is swapped for what it does, not for itself, or it would call itself for ever.
        call = module.forward if module is self.layers[block] else module

        def see(index: int, hidden: torch.Tensor) -> None:
            if index in (block, last):
                seen[index] = distances(hidden[0][self.scored], self.rows[index])

        def start(hidden_states: torch.Tensor, *args: object, **kwargs: object) -> object:
            return call(self.inputs[block], *args, **kwargs)

        with contextlib.ExitStack() as stack:
            for index in range(block):
                stack.enter_context(replaced(self.layers[index], _hand_on(self.sizes[index])))
            stack.enter_context(replaced(self.layers[block], start))
            stack.enter_context(watched(self.layers, see))
            hidden = hidden_states(self.reference, self.ids)
        injected, energy, _ = seen[block]
        return self.damage(self.head, hidden), injected, energy, seen[last][0]

    def damage(self, head: Head, hidden: torch.Tensor) -> float:
        """Return the sum over the scored tokens of KL(reference ‖ head(hidden)), in nats."""
        rows, targets = hidden[0, :-1][self.scored[1:]], self.ids[0, 1:][self.scored[1:]]
        if not len(rows):
            return 0.0
        places = torch.arange(len(rows), device=rows.device)
        found = divergence.compare_hidden(self.logits.__getitem__, places, head, rows, targets, self.vocabulary)
        return float(found["kl"].double().sum())

    def _keep_input(self, _module: nn.Module, args: tuple, kwargs: dict) -> None:
        self.inputs.append((args[0] if args else kwargs["hidden_states"]).clone())  # blocks may write into it

    def _keep_output(self, _module: nn.Module, _args: tuple, out: object) -> None:
        self.rows.append(hidden_of(out)[0][self.scored])
        self.sizes.append(None if isinstance(out, torch.Tensor) else len(out))  # type: ignore[arg-type]


@contextlib.contextmanager
def replaced(module: nn.Module, forward: Callable) -> Iterator[None]:
    """Let a module run ``forward(hidden_states, ...)`` instead of its own; hooks on the module itself stay."""
    before = vars(module).get("forward")
    module.forward = forward
    try:
        yield
    finally:
        if before is None:
            del module.forward
        else:
            module.forward = before


def _hand_on(size: int | None) -> Callable:
    """What a block does that hands its input on, in the form in which it returns: a tensor, or a tuple of a length."""

    def forward(hidden_states: torch.Tensor, *_args: object, **_kwargs: object) -> object:
        return hidden_states if size is None else (hidden_states, *[None] * (size - 1))

    return forward


def _additivity(found: Swaps, n: int, index: np.ndarray | None) -> Estimate:
    """Σ of the single damages over that of the whole; nothing where a block is missing or nothing is damaged."""
    total = found.kl.sum(0)
    known = np.isfinite(found.whole).all() and np.isfinite(total).all()
    if not found.complete or not found.whole.any() or not known:
        return NOTHING
    return dataclasses.replace(mean_interval(total, found.whole, index, POSITIVE), n=n)
