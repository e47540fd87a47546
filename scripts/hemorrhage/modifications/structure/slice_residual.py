"""Slicing the residual stream by PCA: SliceGPT with one rotation for all blocks.

SliceGPT rotates the stream anew in every block and keeps the first principal directions there; the changes of rotation
are matrices on the skip connections, which no architecture of transformers has. Here all blocks share the rotation, so
the architecture stays, and a plain config with a smaller ``hidden_size`` describes the result: a checkpoint that is
loaded, served and fast without any code. The price is that one set of directions must serve all depths: of
SmolLM2-135M's stream, 80 % of the directions keep 97.9 % of the variance (93.8 % where they fit worst), rotations of
their own 99.5 %; the share kept is recorded. Tied embeddings become two matrices, so a small model with a large
vocabulary hardly gets smaller; its parameters are recorded too. It costs one forward pass over the calibration tokens.
Models with layer norms, fused experts or norms behind a part of a block are refused.

After Ashkboos et al., SliceGPT: Compress Large Language Models by Deleting Rows and Columns, 2024 (arXiv 2401.15024).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from hemorrhage.settings import Axis, between, whole

NEEDS = frozenset({"calibration"})
AXIS = Axis("ratio", harmless=0, unit="share of hidden size")
NEUTRAL = {"ratio": 0}
EXAMPLE = {"ratio": 0.25}
REPAIRS: tuple[str, ...] = ()
CHANGES = "shapes"
FINEST = 16  # steps of the hidden size from nothing to all that are asked for at least


@dataclass(frozen=True)
class Settings:
    """How many directions go.

    Attributes:
        ratio: share of the directions of the residual stream that is left out, 0 to 0.95.
        multiple: the hidden size that is left is rounded to a multiple of this, which hardware and groups of weights
            like; SliceGPT's is 8. See ``step`` for what a config asks for beside it.
        calibration: name of the calibration set whose streams give the directions.
    """

    ratio: float = 0.2
    multiple: int = 8
    calibration: str = "default"

    def __post_init__(self) -> None:
        object.__setattr__(self, "ratio", between("ratio", self.ratio, 0, 0.95))
        object.__setattr__(self, "multiple", whole("multiple", self.multiple, 1))


def unsuited(model) -> str | None:
    """Return why the stream of an architecture cannot be rotated, None if it can."""
    from hemorrhage.methods import residual_slicing

    return residual_slicing.unsuited(model)


def step(width: int, multiple: int, heads: int) -> int:
    """Return the number whose multiples a hidden size can have.

    The configs of transformers 5 refuse a hidden size that is no multiple of the number of heads, even where the size
    of a head is given. Both multiples at once can be coarse, 72 of 576; then the heads alone decide.
    """
    both = math.lcm(multiple, heads)
    return both if both <= width / FINEST else heads


def apply(model, settings: Settings, data) -> dict[str, Any]:
    """Slice the stream; returns the new hidden size, the share of variance kept and the parameters before and after.

    Raises ValueError if the architecture cannot be rotated.
    """
    from hemorrhage.architecture import widths
    from hemorrhage.methods import residual_slicing

    if (reason := unsuited(model)) is not None:
        raise ValueError(reason)
    width = model.get_input_embeddings().weight.shape[1]
    unit = step(width, settings.multiple, getattr(model.config.get_text_config(), "num_attention_heads", 1))
    left = max(1, int((1 - settings.ratio) * width / unit + 0.5)) * unit
    if not settings.ratio or left >= width:
        return {"ratio": 0.0, "hidden_size": width}
    before = widths.counts(model)
    tied = model.get_input_embeddings().weight is model.get_output_embeddings().weight
    basis, variance = residual_slicing.directions(model, data.tokens(settings.calibration), data.chunk)
    residual_slicing.rotate(model, basis[:, :left])
    after = widths.counts(model)
    return {
        "ratio": 1 - left / width,
        "hidden_size": left,
        "kept_variance": float(variance[:left].sum() / variance.sum()),
        "untied": tied,
        "weights_before": before[0],
        "weights_after": after[0],
        "parameters_before": before[1],
        "parameters_after": after[1],
    }
