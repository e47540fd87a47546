"""What a probe defines, and what it is given.

A *probe* is a file in ``probes/``. It defines

- a docstring: what it measures, what it costs;
- ``VERSION``: an int, raised whenever its numbers change;
- ``Settings``: a frozen dataclass that validates itself with the helpers of ``settings.py``;
- ``measure(model, context, settings) -> records.Measurement``: compares the variant ``model`` with the reference.

A probe leaves the model as it found it, names its metrics uniquely, and returns the same numbers for the same input.
For the reference itself every distance is exactly 0 and every agreement exactly 1. Torch is imported inside functions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hemorrhage.statistics import index_matrix

if TYPE_CHECKING:
    from hemorrhage.head import Head
    from hemorrhage.reference import Reference
    from hemorrhage.tokens import TokenSet


@dataclass(frozen=True)
class Context:
    """What a probe may read beside the variant.

    Attributes:
        tokens: the windows and which of their positions are scored.
        reference: the reference on the same windows.
        reference_head: the reference's output embedding.
        batch: windows in one forward pass; the same as when the reference was measured.
        layer_map: entry i is the reference's block that block i of the variant copies; None for the reference's own.
        model: name of the model; with ``token_set`` it seeds the resampling, so that variants are paired.
        token_set: name of the token set.
        vocabulary: compare the first so many vocabulary entries; None requires both sides to have equally many.
    """

    tokens: TokenSet
    reference: Reference
    reference_head: Head
    batch: int
    layer_map: list[int | None] | None = None
    model: str = ""
    token_set: str = "evaluation"
    vocabulary: int | None = None

    @property
    def index(self) -> np.ndarray:
        """The resampling indices [R, B] of the windows, the same for every variant of the model."""
        return index_matrix(self.model, self.token_set, len(self.tokens.tokens))
