"""The residual stream of a variant beside the reference's: how far apart they are after every block.

Both models run the same window, one window at a time; the reference's stream of that window is kept (at the scored
tokens only), the variant's is compared as soon as a block gives it. What is kept is a copy: later blocks may write
into the tensor that a block returned.

Blocks are matched by the *layer map*: after block i of the variant the stream is compared with the one after block
``layer_map[i]`` of the reference. Of several copies of one block the last counts, because only after it has the
variant done all that the reference's block does. A block that copies none has no row of its own; what it does shows in
the next one that has.
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
from hemorrhage.architecture.targets import blocks
from hemorrhage.corpus.tokens import TokenSet
from hemorrhage.records import Metric

DECIBEL = 10.0


@dataclasses.dataclass(frozen=True)
class Residuals:
    """Sums over the scored tokens of each window, one row per compared block.

    Attributes:
        blocks: [n] index of the reference's block.
        error: [n, B] of ‖h_v − h_r‖².
        energy: [n, B] of ‖h_r‖².
        cosine: [n, B] of cos(h_v, h_r).
        counts: [B] number of scored tokens.
    """

    blocks: list[int]
    error: np.ndarray
    energy: np.ndarray
    cosine: np.ndarray
    counts: np.ndarray


def sources(model: PreTrainedModel, layer_map: Sequence[int | None] | None, depth: int) -> list[int | None]:
    """Return for every block of ``model`` the reference's block that it copies, None if there is none of its.

    Args:
        model: the variant.
        layer_map: as recorded; None means that the blocks are the reference's.
        depth: number of blocks of the reference.
    """
    count = len(blocks(model)[1])
    given: list[int | None] = list(range(count)) if layer_map is None else list(layer_map)
    if len(given) != count:
        raise ValueError(f"The layer map has {len(given)} entries and the variant {count} blocks; make it again.")
    return [index if index is not None and 0 <= index < depth else None for index in given]


def last_copies(copied: Sequence[int | None]) -> dict[int, int]:
    """Return reference block -> the last block of the variant that copies it, in the reference's order."""
    chosen = {source: place for place, source in enumerate(copied) if source is not None}
    return dict(sorted(chosen.items()))


def comparable(reference: PreTrainedModel, model: PreTrainedModel) -> bool:
    """True if the two residual streams have the same width."""
    return _width(reference) == _width(model)


def compare(
    reference: PreTrainedModel, model: PreTrainedModel, tokens: TokenSet, copied: Sequence[int | None]
) -> Residuals:
    """Run both models over every window and sum what separates their residual streams.

    Args:
        reference: the unchanged model.
        model: the variant, with a residual stream of the same width.
        tokens: the windows; positions that are scored count.
        copied: for every block of the variant the reference's block, from ``sources``.
    """
    chosen = last_copies(copied)
    sums = np.zeros((3, len(chosen), len(tokens.tokens)))
    for window in range(len(tokens.tokens)):
        sums[:, :, window] = _compare_window(reference, model, *window_of(tokens, window, model.device), chosen)
    error, energy, cosine = sums
    return Residuals(list(chosen), error, energy, cosine, tokens.scored.sum(1).astype(np.float64))


def window_of(
    tokens: TokenSet, window: int, device: torch.device, length: int | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (ids [1, L] int64, scored [L] bool) of one window, or of its first ``length`` tokens."""
    ids = torch.as_tensor(tokens.tokens[window : window + 1, :length], dtype=torch.long, device=device)
    return ids, torch.as_tensor(tokens.scored[window, :length], device=device)


@torch.no_grad()
def run(model: PreTrainedModel, ids: torch.Tensor, see: Callable[[int, torch.Tensor], None]) -> None:
    """Run the model without its head; ``see(block, hidden [1, L, d])`` gets the output of every block at once."""
    with watched(blocks(model)[1], see):
        model.base_model(input_ids=ids, use_cache=False)


@contextlib.contextmanager
def watched(layers: nn.ModuleList, see: Callable[[int, torch.Tensor], None]) -> Iterator[None]:
    """Show the output of every block as it is made. It may be written to later: copy what is kept."""
    with contextlib.ExitStack() as stack:
        for index, layer in enumerate(layers):

            def hook(_module: nn.Module, _args: object, out: object, index: int = index) -> None:
                see(index, hidden_of(out))

            stack.callback(layer.register_forward_hook(hook).remove)
        yield


def hidden_of(out: object) -> torch.Tensor:
    """Return the hidden states in what a block returned."""
    return out if isinstance(out, torch.Tensor) else out[0]  # type: ignore[index]


def distances(hidden: torch.Tensor, expected: torch.Tensor) -> list[float]:
    """Return the sums over n tokens of ‖h − e‖², ‖e‖² and cos(h, e) of two streams [n, d].

    The cosine is 1 − ‖h/‖h‖ − e/‖e‖‖² / 2, which is exactly 1 for equal vectors and does not cancel near 1.
    """
    hidden, expected = hidden.double(), expected.double()
    apart = nn.functional.normalize(hidden, dim=-1) - nn.functional.normalize(expected, dim=-1)
    cosine = 1 - apart.square().sum(-1) / 2
    return [float((hidden - expected).square().sum()), float(expected.square().sum()), float(cosine.sum())]


def metrics(found: Residuals, index: np.ndarray) -> list[Metric]:
    """Return relative error, cosine and signal-to-noise ratio of every compared block, and how many those are."""
    n, windows = int(found.counts.sum()), len(found.counts)
    compared = float(len(found.blocks))
    listed = [Metric("blocks_compared", compared, 0.0, compared, compared, n, windows, "blocks", None)]
    for row, block in enumerate(found.blocks):
        ratio = energy_ratio(found.error[row], found.energy[row], n, index)
        cosine = mean_interval(found.cosine[row], found.counts, index, bounds=(-1.0, 1.0))
        if not np.isfinite(cosine.value):
            cosine = dataclasses.replace(cosine, value=float("nan"))
        listed += [
            Metric.of(f"relative_error.{block:02d}", root(ratio), ""),
            Metric.of(f"cosine.{block:02d}", cosine, "", higher_is_better=True),
            Metric.of(f"snr_db.{block:02d}", decibels(ratio), "dB", higher_is_better=True),
        ]
    return listed


def energy_ratio(error: np.ndarray, energy: np.ndarray, n: int, index: np.ndarray | None) -> Estimate:
    """Return Σ error / Σ energy over windows [B] with its interval; ``n`` is the number of tokens behind it."""
    estimate = mean_interval(error, energy, index, bounds=(0.0, float("inf")))
    return dataclasses.replace(estimate, n=n if estimate.blocks else 0)


def root(ratio: Estimate) -> Estimate:
    """Return the relative error of a ratio of energies; the ends of the interval are transformed."""
    value, low, high = (float(np.sqrt(part)) for part in (ratio.value, ratio.low, ratio.high))
    return dataclasses.replace(ratio, value=value, se=_slope(ratio.se, 2 * value), low=low, high=high)


def decibels(ratio: Estimate) -> Estimate:
    """Return the signal-to-noise ratio of a ratio of energies (noise over signal): infinite without noise."""
    with np.errstate(divide="ignore"):
        value, high, low = (float(-DECIBEL * np.log10(part)) for part in (ratio.value, ratio.low, ratio.high))
    se = _slope(ratio.se * DECIBEL / np.log(10), ratio.value)
    return dataclasses.replace(ratio, value=value, se=se, low=low, high=high)


def _slope(se: float, by: float) -> float:
    """A standard error after a transformation; no noise at all has none."""
    if not np.isfinite(by):
        return float("nan")
    return float(se / by) if by else float(se)


def _compare_window(
    reference: PreTrainedModel, model: PreTrainedModel, ids: torch.Tensor, scored: torch.Tensor, chosen: dict[int, int]
) -> np.ndarray:
    """The sums of ``distances`` [3, n] of one window for every pair of blocks in ``chosen``."""
    kept: dict[int, torch.Tensor] = {}
    found: dict[int, list[float]] = {}
    source_of = {place: source for source, place in chosen.items()}

    def keep(block: int, hidden: torch.Tensor) -> None:
        if block in chosen:
            kept[block] = hidden[0][scored]  # an index by a mask copies

    def measure(place: int, hidden: torch.Tensor) -> None:
        if place in source_of:
            found[source_of[place]] = distances(hidden[0][scored], kept[source_of[place]])

    run(reference, ids, keep)
    run(model, ids, measure)
    return np.array([found[source] for source in chosen]).reshape(-1, 3).T


def _width(model: PreTrainedModel) -> int:
    return int(model.config.get_text_config().hidden_size)
