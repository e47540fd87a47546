"""Depth map: where the model tolerates surgery, by start block and length, for removal and for repetition.

It is a map of the model that it is given, meant for the reference (``variants: [identity]``): damage is measured
against the same model uncut. For every range of blocks the KL of the uncut predictions against those without it, and
with it running twice, and the change of the loss. ``removal_kl.03.2`` is the KL with blocks 3 and 4 removed, in nats
per token; ``repetition_delta_nll.03.2`` the change of the loss with both repeated as a range. ``depth_map_control``
must be 0.

Cost: one forward pass, and for each range the blocks after its start and one product with the output embedding, over
the tokens of the map; ranges are many, so the tokens are few, and the intervals say how much that tells.
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
EXAMPLE = {"windows": 3, "length": 16, "removed": [1, 2], "repeated": [1]}


@dataclass(frozen=True)
class Settings:
    """Which ranges, on how many tokens.

    Attributes:
        windows: number of windows, from the first on.
        length: tokens from the beginning of each.
        removed: lengths of the removed ranges.
        repeated: lengths of the repeated ranges.
    """

    windows: int = 2
    length: int = 128
    removed: Sequence[int] = (1, 2, 4, 8)
    repeated: Sequence[int] = (1, 2, 4, 8)

    def __post_init__(self) -> None:
        object.__setattr__(self, "windows", whole("windows", self.windows, 1))
        object.__setattr__(self, "length", whole("length", self.length, 2))
        for name in ("removed", "repeated"):
            values = getattr(self, name)
            values = values if isinstance(values, list | tuple) else [values]
            object.__setattr__(self, name, tuple(whole(name, value, 1) for value in values))


def measure(model: PreTrainedModel, context: Context, settings: Settings) -> Measurement:
    """Cut ``model`` everywhere and measure what each cut does."""
    from hemorrhage.analysis.statistics import index_matrix
    from hemorrhage.measuring import depth_map
    from hemorrhage.records import Measurement

    windows = min(settings.windows, len(context.tokens.tokens))
    length = min(settings.length, context.tokens.tokens.shape[1])
    if not context.tokens.scored[:windows, :length].any():
        length = context.tokens.tokens.shape[1]  # a protocol that scores the end of its windows only
    found = depth_map.measure(model, context.tokens, windows, length, settings.removed, settings.repeated)
    index = index_matrix(context.model, context.token_set, windows)
    return Measurement(depth_map.metrics(found, index), arrays=depth_map.arrays(found))
