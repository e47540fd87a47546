"""Gradient-aware pruning: Wanda's score with the size of the loss gradient beside the norm of the input.

The score of GBLM-Pruner is |W|·‖X‖ + |W|·G, where G sums the gradient of the language-modelling loss over samples,
times 100. Gradients are collected once for a model and calibration set, in one backward pass a sample. It costs
Wanda's forward pass and one float32 gradient the size of the blocks on disk.

The published scale of 100 belongs to 128 samples of 2048 tokens: ‖X‖ there is the square root of a sum over 2048
tokens, averaged over samples, so it is √2048·x with x the root mean square over tokens; G in the l2 form is the root
of a sum over 128 samples, √128·g with g the root mean square over samples, and 128·g in the l1 form with g the mean
of |∂L/∂W|. Divided by √2048, the score is |W|·(x + w·g) with w = 100·√128/√2048 (l2) or 100·128/√2048 (l1). The
gradient of a mean over T tokens is mostly noise, which falls with √T, so that gradients of samples of T tokens are
about √(2048/T) times larger: w is divided by that. The weight is recorded as ``gradient_weight``; ``scale`` is an
axis of ablation, and 0 is Wanda.

Das et al., Beyond Size: How Gradients Shape Pruning Decisions in Large Language Models, 2023 (arXiv 2311.04902).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from hemorrhage.methods import pruning
from hemorrhage.settings import Axis, between, require

NEEDS = frozenset({"calibration", "gradients"})
AXIS = Axis("sparsity", harmless=0, unit="share of weights")
NEUTRAL = {"sparsity": 0}
EXAMPLE = {"sparsity": 0.5}
REPAIRS = ("magnitude", "wanda")
NORMS = ("l1", "l2")
PUBLISHED_SAMPLES, PUBLISHED_TOKENS = 128, 2048

refuse = pruning.refuse


@dataclass(frozen=True)
class Settings(pruning.SequentialSettings):
    """What to prune, on which text inputs and gradients are seen, and how much the gradient counts.

    Attributes:
        scale: factor of the gradient term as published, for 128 samples of 2048 tokens; 0 is Wanda.
        norm: "l2" (root mean square over samples) or "l1" (mean absolute value).
    """

    scale: float = 100.0
    norm: str = "l2"

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "scale", between("scale", self.scale, 0, 1e9))
        require(self.norm, NORMS, "norm")


def gradient_weight(scale: float, norm: str, length: int) -> float:
    """Return w of |W|·(x + w·g) for gradients of samples of ``length`` tokens (see the module's docstring)."""
    samples = PUBLISHED_SAMPLES if norm == "l1" else math.sqrt(PUBLISHED_SAMPLES)
    return scale * samples / math.sqrt(PUBLISHED_TOKENS) * math.sqrt(length / PUBLISHED_TOKENS)


def apply(model, settings: Settings, data) -> dict[str, Any]:
    """Prune every target by |W|·(x + w·g) while the calibration tokens run through the model once.

    Raises ValueError if a pattern does not divide a width, or the gradients are of another model.
    """
    from hemorrhage.activations import calibration
    from hemorrhage.methods import allocation

    tokens = data.tokens(settings.calibration)
    gradients = data.gradients(settings.calibration, settings.norm)
    weight_of_gradient = gradient_weight(settings.scale, settings.norm, tokens.shape[1])
    cutter = pruning.Cutter(settings, "row", allocation.shares(model, tokens, settings, data.chunk))
    unseen = 0

    def visit(group) -> None:
        nonlocal unseen
        norm = group.square_mean().sqrt() if group.rows else 0.0
        for target in group.targets:
            unseen += not group.rows
            size = target.weight.abs().float()
            factor = norm + weight_of_gradient * pruning.gradient_of(gradients, target) if group.rows else 1.0
            cutter.cut(target, size * factor)

    calibration.walk(model, tokens, visit, order=settings.order, chunk=data.chunk, statistics=("square_mean",))
    return {**cutter.achieved(), "targets_without_tokens": unseen, "gradient_weight": weight_of_gradient}
