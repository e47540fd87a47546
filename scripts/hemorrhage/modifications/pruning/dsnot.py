"""DSnoT: prune by another method's score, then swap weights until the expected output of every row is back.

Pruning takes W·x̄ out of the expected output of a row. Every row regrows the pruned weight that brings most of it back
(for the least variance of its input) and prunes a kept one of low Wanda score, up to 50 times or until less than a
threshold is missing. Weights keep their values: only the mask changes. It needs the dense weights, so it prunes itself,
by the score that ``initial`` names ("sparsegpt" is its score w²/[H⁻¹]_jj, without its update, as in the reference
code). It costs Wanda's forward pass and some partial sorts; with ``initial: sparsegpt`` a Gram matrix for every input.

The published threshold of 0.1 belongs to inputs summed over samples of 2048 tokens; here it is compared with 2048 times
the mean over tokens, whatever their number. The variance is that over all calibration tokens. The reference code leaves
the MLP unrefined unless told otherwise; here every target is refined. Experts that no token reached are pruned by |W|.

Zhang et al., Dynamic Sparse No Training: Training-Free Fine-tuning for Sparse LLMs, 2023 (arXiv 2310.08915).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hemorrhage.methods import pruning
from hemorrhage.settings import Axis, between, require, whole

NEEDS = frozenset({"calibration"})
AXIS = Axis("sparsity", harmless=0, unit="share of weights")
NEUTRAL = {"sparsity": 0}
EXAMPLE = {"sparsity": 0.5}
REPAIRS: tuple[str, ...] = ()
INITIAL = ("wanda", "magnitude", "sparsegpt")
PUBLISHED_TOKENS = 2048
DAMPING = 0.01

refuse = pruning.refuse


@dataclass(frozen=True)
class Settings(pruning.SequentialSettings):
    """What to prune, on which text the inputs are seen, what to begin with and how long to swap.

    Attributes:
        initial: the score of the first mask: "wanda", "magnitude" (within rows) or "sparsegpt".
        cycles: most swaps in a row; 0 leaves the first mask.
        threshold: what may be missing from the expected output of a row, summed over 2048 tokens.
    """

    initial: str = "wanda"
    cycles: int = 50
    threshold: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.initial, INITIAL, "initial")
        object.__setattr__(self, "cycles", whole("cycles", self.cycles, 0))
        object.__setattr__(self, "threshold", between("threshold", self.threshold, 0, 1e9))


def apply(model, settings: Settings, data) -> dict[str, Any]:
    """Prune every target and refine its mask while the calibration tokens run through the model once.

    Raises ValueError if a pattern does not divide a width, or a weight or an input is not finite.
    """
    from hemorrhage.activations import calibration
    from hemorrhage.methods import allocation, tensors

    tokens = data.tokens(settings.calibration)
    cutter = pruning.Cutter(settings, "row", allocation.shares(model, tokens, settings, data.chunk))
    swaps = unseen = 0

    def visit(group) -> None:
        nonlocal swaps, unseen
        unseen += 0 if group.rows else len(group.targets)
        score = _scorer(group, settings.initial)
        for target in group.targets:
            weight = tensors.require_finite(target.weight, target.name)
            first = score(weight)
            keep = cutter.keep(target, first)
            if group.rows:
                keep, number = _refine(weight, keep, group, first, cutter.groups(target), settings)
                swaps += number
            cutter.put(target, keep, weight.masked_fill(~keep, 0))

    statistics = ("mean", "square_mean", *(["gram"] if settings.initial == "sparsegpt" else []))
    calibration.walk(model, tokens, visit, order=settings.order, chunk=data.chunk, statistics=statistics)
    return {**cutter.achieved(), "targets_without_tokens": unseen, "swaps": swaps}


def _scorer(group, initial: str):
    """The function of a weight [out, in] that gives the score of the first mask."""
    from hemorrhage.methods import factors

    if initial == "magnitude" or not group.rows:
        return lambda weight: weight.abs().float()
    if initial == "wanda":
        norm = group.square_mean().sqrt()
        return lambda weight: weight.abs().float() * norm
    edge = factors.inverse_factor(group.gram(), DAMPING)[0].diagonal()
    return lambda weight: (weight.float() / edge).square()


def _refine(weight, keep, group, first, groups, settings: Settings):
    """The refined mask and the number of swaps."""
    from hemorrhage.methods import scores, swapping

    mean, square = group.mean(), group.square_mean()
    variance = (square - mean.square()).clamp_min(0)
    threshold = settings.threshold / PUBLISHED_TOKENS
    if groups:
        return swapping.refine_groups(weight, keep, mean, variance, first, threshold, settings.cycles, groups[1])
    cost = scores.wanda(weight, square.sqrt())
    return swapping.refine(weight, keep, mean, variance, cost, threshold, settings.cycles)
