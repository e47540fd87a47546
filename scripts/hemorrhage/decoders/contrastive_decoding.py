"""Contrastive decoding: what the variant finds likelier than a weaker model does, among its own likely tokens.

The token with the largest (1 + β) · s − β · w is taken, with the logits s of the variant and w of the weaker one, among
the tokens with at least a share α of the largest probability of the variant. The weaker model is another variant of
the study. β = 0 is greedy search. It costs one more forward pass of a model of the same size. Li et al. 2023,
"Contrastive Decoding"; this form and its defaults: O'Brien & Lewis 2023.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hemorrhage import settings as check
from hemorrhage.settings import Axis

if TYPE_CHECKING:
    import torch

    from hemorrhage.decoding.generation import Rows

AXIS = Axis("beta", harmless=0, rises=True, unit="weight of the weaker model")
STOCHASTIC = False
EXAMPLE: dict[str, object] = {"weak": "other"}
OTHER = "weak"


@dataclass(frozen=True)
class Settings:
    """Settings of contrastive decoding.

    Attributes:
        weak: slug of the variant that is the weaker model.
        alpha: share of the largest probability that a token needs, above 0 and up to 1.
        beta: weight of the weaker model, 0 to 10.
    """

    weak: str
    alpha: float = 0.1
    beta: float = 0.5

    def __post_init__(self) -> None:
        """Raise ValueError naming the setting, the value and what is allowed."""
        object.__setattr__(self, "alpha", check.between("alpha", self.alpha, 1e-6, 1))
        object.__setattr__(self, "beta", check.between("beta", self.beta, 0, 10))


def scores(logits: torch.Tensor, rows: Rows, settings: Settings) -> torch.Tensor:
    """Return the contrast of the plausible tokens, -inf for the others."""
    other = rows.seen.other if rows.seen else None
    if other is None or other.shape != logits.shape:
        raise ValueError(f"weak: '{settings.weak}' must be a variant with the same vocabulary.")
    plausible = logits >= logits.amax(-1, keepdim=True) + math.log(settings.alpha)
    weak = other.clamp(min=-1e30)  # a weaker model that rules a token out must not make the contrast infinite
    return ((1 + settings.beta) * logits - settings.beta * weak).masked_fill(~plausible, -float("inf"))
