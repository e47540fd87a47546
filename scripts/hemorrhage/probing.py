"""What a probe defines, and what it is given.

A *probe* is a file in ``probes/``. It defines

- a docstring: what it measures, what it costs;
- ``VERSION``: an int, raised whenever its numbers change;
- ``Settings``: a frozen dataclass that validates itself with the helpers of ``settings.py``;
- ``measure(model, context, settings) -> records.Measurement``: compares the variant ``model`` with the reference.

It may define

- ``EXAMPLE``: settings (a dict) for the contract test, where the defaults take long;
- ``BASELINE = True``: ``context.baseline`` holds the arrays that it recorded of the reference;
- ``TEXTS = True``: its settings have ``text``, the name of a text of the config or None for that of the evaluation
  windows; ``context.text`` says where that comes from and ``context.seen`` which token sets modifications have seen;
- ``PACKAGES``: names of further packages that can change its numbers.

A probe leaves the model as it found it, names its metrics uniquely, and returns the same numbers for the same input.
For the reference itself every distance is exactly 0 and every agreement exactly 1. Torch is imported inside functions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hemorrhage.analysis.statistics import index_matrix

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from hemorrhage.architecture.head import Head
    from hemorrhage.corpus.tokens import TokenSet
    from hemorrhage.measuring.reference import Reference


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
        baseline: the arrays that this probe recorded of the reference; None when it measures the reference itself.
        text: source, checksum and format of a text, for probes that build something from it.
        seen: files of the fit and calibration sets.
        model_dir: the model's result folder, with base/, tokens/, reference/.
        load_reference: loads the reference model, for probes that run it beside the variant.
    """

    tokens: TokenSet
    reference: Reference
    reference_head: Head
    batch: int
    layer_map: list[int | None] | None = None
    model: str = ""
    token_set: str = "evaluation"
    vocabulary: int | None = None
    load_reference: Callable[[], PreTrainedModel] | None = None
    baseline: dict[str, np.ndarray] | None = None
    text: Mapping[str, Any] | None = None
    seen: Sequence[str] = ()
    model_dir: Path | None = None

    def loaded_reference(self) -> PreTrainedModel:
        """The reference model, loaded now. Raises ValueError if the context does not say from where."""
        if self.load_reference is None:
            raise ValueError("This probe runs the reference beside the variant; give the context load_reference.")
        return self.load_reference()

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The model's tokenizer. Raises ValueError if the context has no model folder."""
        from hemorrhage.architecture import models

        if self.model_dir is None:
            raise ValueError("This probe needs the tokenizer; give the context model_dir.")
        return models.load_tokenizer(Path(self.model_dir) / "base")

    @property
    def index(self) -> np.ndarray:
        """The resampling indices [R, B] of the windows, the same for every variant of the model."""
        return index_matrix(self.model, self.token_set, len(self.tokens.tokens))
