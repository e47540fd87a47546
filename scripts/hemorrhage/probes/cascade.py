"""Cascade: where in depth the damage starts, and what the blocks after it make of it.

Reference and variant run the same windows side by side. After every block their residual streams are compared at the
scored tokens: relative error ‖h_v − h_r‖ / ‖h_r‖ (over all of them), cosine (mean over tokens) and signal-to-noise
ratio in dB. Metrics are named by the reference's block, ``relative_error.03``; ``residuals.py`` says how the blocks of
a longer or shorter variant are matched.

Then single blocks of the variant are swapped into the reference, on about ``tokens`` tokens: ``swap_kl.03`` is what
block 3 alone does to the predictions, ``swap_injected.03`` the error it puts into the stream, ``swap_end_error.03``
what has become of it after the last block; ``swap_additivity`` is the sum of the single damages over that of the whole
variant, and ``swap_control``, a block of the reference swapped for itself, must be 0. ``swap_blocks`` says how many
blocks could be swapped: those that exactly one block of the variant copies; without the others the additivity is empty.
The archive holds the sums of each window, [blocks, windows].

Cost: one forward pass of each model, and for each swap on average half a pass and one product with the output
embedding over the tokens of the swaps. Both models are in memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hemorrhage.settings import whole

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from hemorrhage.probing import Context
    from hemorrhage.records import Measurement

VERSION = 1


@dataclass(frozen=True)
class Settings:
    """How much is swapped.

    Attributes:
        tokens: tokens on which blocks are swapped, in all; 0 leaves the swaps out.
        length: tokens from the beginning of each window that are used for it.
    """

    tokens: int = 512
    length: int = 128

    def __post_init__(self) -> None:
        object.__setattr__(self, "tokens", whole("tokens", self.tokens, 0))
        object.__setattr__(self, "length", whole("length", self.length, 2))


def measure(model: PreTrainedModel, context: Context, settings: Settings) -> Measurement:
    """Compare the residual streams of ``model`` and of the reference, and swap blocks.

    Raises:
        ValueError: the context cannot load the reference, the layer map does not fit, or the vocabularies differ.
    """
    from hemorrhage.analysis.statistics import index_matrix
    from hemorrhage.architecture.targets import blocks
    from hemorrhage.measuring import block_swaps, residuals
    from hemorrhage.records import Measurement

    reference, tokens = context.loaded_reference(), context.tokens
    copied = residuals.sources(model, context.layer_map, len(blocks(reference)[1]))
    if not residuals.comparable(reference, model):
        copied = [None] * len(copied)  # streams of other widths: nothing can be compared, and the record says so
    found = residuals.compare(reference, model, tokens, copied)
    metrics = residuals.metrics(found, context.index)
    arrays = {
        "blocks": np.array(found.blocks, dtype=np.int64),
        "error": found.error,
        "energy": found.energy,
        "cosine": found.cosine,
    }
    if settings.tokens:
        windows, length = block_swaps.budget(tokens, settings.tokens, settings.length)
        swaps = block_swaps.swap(reference, model, tokens, copied, windows, length, context.vocabulary)
        metrics += block_swaps.metrics(swaps, index_matrix(context.model, context.token_set, windows))
        arrays |= {"swap_blocks": np.array(swaps.blocks, dtype=np.int64), "swap_kl": swaps.kl}
    return Measurement(metrics, windows={"count": found.counts}, arrays=arrays)
