"""Context: loss and divergence by the position in the window, and with windows cut short.

By position, the scored tokens of the same windows fall into buckets by how much context they have: ``kl_position.0064``
is the KL from position 64 to the next bucket, ``perplexity_position.0064`` the variant's perplexity there. Damage that
grows with the position is damage to long context (rotary positions, attention), damage that is largest at the start is
not. By length, the windows are cut into pieces of fewer tokens and both models start anew in each:
``perplexity_length.0032``, ``kl_length.0032``.

Cost: one forward pass of the variant for the positions, and one of both models for each length. Both models are in
memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hemorrhage.settings import whole

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from hemorrhage.probing import Context
    from hemorrhage.records import Measurement

VERSION = 1
EXAMPLE = {"edges": [1, 4, 8], "lengths": [4, 8]}


@dataclass(frozen=True)
class Settings:
    """Buckets and lengths.

    Attributes:
        edges: first positions of the buckets; those beyond the window are left out.
        lengths: context lengths to which windows are cut; those not below the window are left out.
    """

    edges: Sequence[int] = (1, 4, 16, 64, 128, 256, 512, 1024, 2048, 4096)
    lengths: Sequence[int] = (16, 64)

    def __post_init__(self) -> None:
        for name, low in (("edges", 1), ("lengths", 2)):
            values = getattr(self, name)
            values = values if isinstance(values, list | tuple) else [values]
            object.__setattr__(self, name, tuple(sorted({whole(name, value, low) for value in values})))


def measure(model: PreTrainedModel, context: Context, settings: Settings) -> Measurement:
    """Compare ``model`` with the reference by position and by context length.

    Raises:
        ValueError: the vocabularies differ, or the reference was measured on other windows.
    """
    from hemorrhage.measuring import context_effects

    return context_effects.measure(model, context, settings.edges, settings.lengths)
