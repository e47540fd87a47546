"""Function-preserving width growth as in Net2Net: channels of the feed-forward parts are duplicated.

New channels of every feed-forward part repeat old ones, drawn with a seed; the columns of the down projection that read
them are divided by how often a channel now stands there. The function stays the same up to the order of summation. With
``noise`` the duplicates' input weights get Gaussian noise relative to their own spread, as Net2Net does to let training
tell them apart; the weights that leave them stay. It costs nothing but the channels.

Chen et al., Net2Net: Accelerating Learning via Knowledge Transfer, 2016 (arXiv 1511.05641), eq. 5; Chen et al.,
bert2BERT, 2022 (arXiv 2110.07143).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hemorrhage.settings import Axis, between

NEEDS: frozenset[str] = frozenset()
AXIS = Axis("share", harmless=0, unit="share of feed-forward channels added")
NEUTRAL = {"share": 0}
EXAMPLE = {"share": 0.5, "noise": 0.1}
REPAIRS: tuple[str, ...] = ()
CHANGES = "shapes"


@dataclass(frozen=True)
class Settings:
    """How much width is added.

    Attributes:
        share: added channels over those there were, 0 to 4.
        noise: standard deviation of the noise on a duplicate's input weights over that of the weight, 0 to 10.
    """

    share: float = 0.5
    noise: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "share", between("share", self.share, 0, 4))
        object.__setattr__(self, "noise", between("noise", self.noise, 0, 10))


def unsuited(model) -> str | None:
    """Return why the architecture cannot be widened: it has no feed-forward part, or one of fused experts."""
    from hemorrhage.architecture import feedforward

    return feedforward.unsuited(model)


def apply(model, settings: Settings, data) -> dict[str, Any]:
    """Widen every feed-forward part; returns the old and the new number of channels.

    Raises ValueError if the architecture has no dense feed-forward part.
    """
    from hemorrhage.architecture import blocks, feedforward, randomness

    parts = feedforward.find(model)
    old = parts[0].channels
    added = int(settings.share * old + 0.5)
    if added:
        for part in parts:
            words = f"{data.seed} {part.down.name}"
            feedforward.widen(part, added, settings.noise, randomness.generator(words), words)
        feedforward.tell_config(model, old, old + added)
        blocks.check(model)
    return {"channels_before": old, "channels": old + added}
