"""Attention maps of a variant beside the reference's: one window and one block at a time.

The reference runs a window first, and what enters its attention modules is kept, never a map. Then the variant runs
the window; when one of its attention modules gives its map, the reference's module gives its own from what was kept,
the two are compared head by head, and both are dropped. Both models use the ``eager`` implementation meanwhile: no
other one returns maps.

Compared are the rows of the scored tokens, each a distribution over the keys:

- the Jensen-Shannon divergence, in nats; over ln 2 and averaged over heads it is a block's *disruption*, 0 to 1;
- the change of the entropy, in nats; above 0 the variant's attention is more diffuse;
- the change of the mass on the first token, the sink.

A block of the variant is compared with the reference's block that it copies. Of several copies of one block the last
counts, as in ``residuals.py``, but a copy whose attention writes nothing is passed over while another one writes: its
map has no effect. A block without maps on either side (a state-space block) or with another number of heads is none.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from hemorrhage.analysis.statistics import Estimate, mean_interval
from hemorrhage.architecture.targets import blocks
from hemorrhage.corpus.tokens import TokenSet
from hemorrhage.measuring.residuals import window_of
from hemorrhage.records import Metric

LN2 = math.log(2)
EAGER = "eager"
PROBED = 5  # tokens on which attention modules are found: a number that is no usual width
ELEMENTS = 2**22  # of maps that are compared at a time, in float64

STATISTICS = ("jensen_shannon", "entropy_change", "first_token_mass_change")


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What was summed over the scored tokens of each window.

    Attributes:
        blocks: [n] index of the reference's block.
        places: [n] index of the variant's block that was compared with it.
        sums: statistic -> [n, heads, B]; nan for heads that a narrower block does not have.
        counts: [B] number of scored tokens.
    """

    blocks: list[int]
    places: list[int]
    sums: dict[str, np.ndarray]
    counts: np.ndarray


@torch.no_grad()
def compare(
    reference: PreTrainedModel, model: PreTrainedModel, tokens: TokenSet, copied: Sequence[int | None]
) -> Comparison:
    """Run both models over every window and compare their attention maps.

    Args:
        reference: the unchanged model; both are left as they were.
        model: the variant.
        tokens: the windows; rows of scored tokens count.
        copied: for every block of the variant the reference's block, from ``residuals.sources``.
    """
    with eager(reference), eager(model):
        ids, _ = window_of(tokens, 0, model.device, PROBED)
        known, found = attention_modules(reference, ids), attention_modules(model, ids)
        pairs = {place: source for place, source in enumerate(copied) if source in known and place in found}
        sums: dict[int, list[torch.Tensor]] = {}
        silent = dict.fromkeys(pairs, True)
        for window in range(len(tokens.tokens)):
            ids, scored = window_of(tokens, window, model.device)
            calls = _calls(reference, ids, known)
            with _compared(found, known, pairs, calls, scored, sums, silent):
                model.base_model(input_ids=ids, use_cache=False)
    places = _chosen({place: source for place, source in pairs.items() if place in sums}, silent)
    heads = max((sums[place][0].shape[1] for place in places.values()), default=0)
    stacked = np.full((len(STATISTICS), len(places), heads, len(tokens.tokens)), np.nan)
    for row, place in enumerate(places.values()):
        values = torch.stack(sums[place], -1)
        stacked[:, row, : values.shape[1]] = values.cpu().numpy()
    return Comparison(
        list(places),
        list(places.values()),
        dict(zip(STATISTICS, stacked, strict=True)),
        tokens.scored.sum(1).astype(np.float64),
    )


@contextlib.contextmanager
def eager(model: PreTrainedModel) -> Iterator[None]:
    """Let a model use the eager attention; copied blocks hold a config of their own and are told too."""
    held = [model.config, model.config.get_text_config(), *(getattr(part, "config", None) for part in model.modules())]
    configs = {id(config): config for config in held if isinstance(config, PreTrainedConfig)}
    before = {key: config._attn_implementation for key, config in configs.items()}
    try:
        for config in configs.values():
            config._attn_implementation = EAGER
        yield
    finally:
        for key, config in configs.items():
            config._attn_implementation = before[key]


def attention_modules(model: PreTrainedModel, ids: torch.Tensor) -> dict[int, nn.Module]:
    """Return block -> its module that returns an attention map [1, heads, L, L]; blocks without one are left out.

    Args:
        model: with the eager attention.
        ids: [1, L] int64 on its device.
    """
    found: dict[int, nn.Module] = {}
    with contextlib.ExitStack() as stack:
        for block, layer in enumerate(blocks(model)[1]):
            for module in layer.modules():

                def hook(module: nn.Module, _args: object, out: object, block: int = block) -> None:
                    if block not in found and _map_of(out, ids.shape[1]) is not None:
                        found[block] = module

                stack.callback(module.register_forward_hook(hook).remove)
        model.base_model(input_ids=ids, use_cache=False)
    return found


def head_statistics(expected: torch.Tensor, maps: torch.Tensor) -> torch.Tensor:
    """Return the sums over query positions of the STATISTICS, [3, heads] float64.

    The Jensen-Shannon divergence is H(m) − (H(p) + H(q)) / 2, exactly 0 for equal maps, in float64. A row that is not
    finite has the largest divergence, ln 2, and no entropy.

    Args:
        expected: [heads, n, keys] of the reference: n rows that are distributions.
        maps: the same of the variant.
    """
    step = max(1, ELEMENTS // max(1, maps[0].numel()))
    parts = []
    for start in range(0, len(maps), step):
        p, q = expected[start : start + step].double(), maps[start : start + step].double()
        h_p, h_q, h_m = (torch.special.entr(part).sum(-1) for part in (p, q, (p + q) / 2))
        divergence = (h_m - h_p / 2 - h_q / 2).clamp(0, LN2).nan_to_num(nan=LN2)
        parts.append(torch.stack([divergence.sum(-1), (h_q - h_p).sum(-1), (q[..., 0] - p[..., 0]).sum(-1)]))
    return torch.cat(parts, dim=1)


def metrics(found: Comparison, index: np.ndarray) -> list[Metric]:
    """Return the statistics per block (means over heads), the mean disruption, and how many blocks were compared."""
    number, n = float(len(found.blocks)), int(found.counts.sum())
    listed = [Metric("attention_blocks", number, 0.0, number, number, n, len(found.counts), "blocks", None)]
    if not found.blocks:
        return listed
    heads = ~np.isnan(found.sums["jensen_shannon"][..., :1])  # only the padding of a block with fewer heads is nan
    means = {name: sums.mean(1, where=heads) for name, sums in found.sums.items()}
    disruption = means["jensen_shannon"] / LN2
    listed.append(Metric.of("disruption", mean_interval(disruption.mean(0), found.counts, index, (0.0, 1.0)), "share"))
    for row, block in enumerate(found.blocks):
        entropy, mass = (_signed(means[name][row], found.counts, index) for name in STATISTICS[1:])
        listed += [
            Metric.of(
                f"disruption.{block:02d}", mean_interval(disruption[row], found.counts, index, (0.0, 1.0)), "share"
            ),
            Metric.of(f"entropy_change.{block:02d}", entropy, "nats", higher_is_better=None),
            Metric.of(f"first_token_mass_change.{block:02d}", mass, "share", higher_is_better=None),
        ]
    return listed


def arrays(found: Comparison) -> dict[str, np.ndarray]:
    """Return the statistics per block and head, [n, heads] means over the scored tokens, and which blocks those are."""
    total = max(1.0, float(found.counts.sum()))
    means = {name: sums.sum(-1) / total for name, sums in found.sums.items()}
    return {"blocks": np.array(found.blocks, dtype=np.int64), "places": np.array(found.places, dtype=np.int64), **means}


def _calls(reference: PreTrainedModel, ids: torch.Tensor, known: dict[int, nn.Module]) -> dict[int, tuple]:
    """Run the reference; returns block -> what its attention module was called with."""
    calls: dict[int, tuple] = {}
    with contextlib.ExitStack() as stack:
        for block, module in known.items():

            def hook(_module: nn.Module, args: tuple, kwargs: dict, block: int = block) -> None:
                calls[block] = (args, kwargs)

            stack.callback(module.register_forward_pre_hook(hook, with_kwargs=True).remove)
        reference.base_model(input_ids=ids, use_cache=False)
    return calls


@contextlib.contextmanager
def _compared(
    found: dict[int, nn.Module],
    known: dict[int, nn.Module],
    pairs: dict[int, int],
    calls: dict[int, tuple],
    scored: torch.Tensor,
    sums: dict[int, list[torch.Tensor]],
    silent: dict[int, bool],
) -> Iterator[None]:
    """Compare the map of every paired block as the variant makes it; adds one entry a window to ``sums``."""
    length = len(scored)
    with contextlib.ExitStack() as stack:
        for place, source in pairs.items():

            def hook(_module: nn.Module, _args: object, out: tuple, place: int = place, source: int = source) -> None:
                args, kwargs = calls[source]
                expected, maps = _map_of(known[source](*args, **kwargs), length), _map_of(out, length)
                if expected is not None and maps is not None and expected.shape == maps.shape:
                    rows = head_statistics(expected[0][:, scored], maps[0][:, scored])
                    sums.setdefault(place, []).append(rows)
                    silent[place] &= not bool(out[0].any())

            stack.callback(found[place].register_forward_hook(hook).remove)
        yield


def _map_of(out: object, length: int) -> torch.Tensor | None:
    """Return the attention map [1, heads, L, L] in what a module returned."""
    for part in out if isinstance(out, tuple) else ():
        if isinstance(part, torch.Tensor) and part.dim() == 4 and part.shape[2:] == (length, length):
            return part
    return None


def _chosen(pairs: dict[int, int], silent: dict[int, bool]) -> dict[int, int]:
    """Return reference block -> the last place that copies it and writes something, else the last one."""
    chosen: dict[int, int] = {}
    for place, source in pairs.items():
        if source not in chosen or not silent[place] or silent[chosen[source]]:
            chosen[source] = place
    return dict(sorted(chosen.items()))


def _signed(sums: np.ndarray, counts: np.ndarray, index: np.ndarray) -> Estimate:
    """The mean of a change; unknown where a map is broken, which is no infinite change."""
    estimate = mean_interval(sums, counts, index)
    return estimate if math.isfinite(estimate.value) else dataclasses.replace(estimate, value=math.nan)
