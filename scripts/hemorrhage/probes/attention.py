"""Attention: how far the variant's attention maps are from the reference's, block by block and head by head.

Both models run the same windows with the eager attention, side by side, one window and one block at a time. Per head
and averaged over the scored tokens: the Jensen-Shannon divergence of the maps, the change of their entropy and the
change of the mass on the first token. Metrics are named by the reference's block: ``disruption.03`` is the mean over
heads of the divergence over ln 2, from 0 (the same maps) to 1 (no key in common); ``disruption`` is the mean over all
compared blocks; the record's archive holds the values per head. ``attention_maps.py`` says how the blocks of a longer
or shorter variant are matched. ``attention_blocks`` is the number of compared blocks: 0 for an architecture without
attention, whose record has nothing else.

Cost: one forward pass of each model with eager attention, the reference's attention once more, and about ten
operations for each element of a map. Both models are in memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from hemorrhage.probing import Context
    from hemorrhage.records import Measurement

VERSION = 1


@dataclass(frozen=True)
class Settings:
    """No settings: the windows are the token set's."""


def measure(model: PreTrainedModel, context: Context, settings: Settings) -> Measurement:
    """Compare the attention maps of ``model`` with the reference's.

    Raises:
        ValueError: the context cannot load the reference, or the layer map does not fit the variant.
    """
    from hemorrhage.architecture.targets import blocks
    from hemorrhage.measuring import attention_maps, residuals
    from hemorrhage.records import Measurement

    reference = context.loaded_reference()
    copied = residuals.sources(model, context.layer_map, len(blocks(reference)[1]))
    found = attention_maps.compare(reference, model, context.tokens, copied)
    return Measurement(
        attention_maps.metrics(found, context.index),
        windows={"count": found.counts},
        arrays=attention_maps.arrays(found),
    )
