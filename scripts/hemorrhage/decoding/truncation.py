"""Cutting a distribution to the first tokens, in some order, that together hold a share of the probability.

Sorting a whole vocabulary can cost more than a forward pass of a small model. The tokens are put into bins of the order
instead; the bins before the cut are kept as they are, and only the tokens of the bin where the mass is reached are
sorted. The result is that of a whole stable sort.
"""

from __future__ import annotations

import torch

BINS = 4096
SPARE = 1e-6  # of the mass; sums in float32 are off by less


def beyond_mass(keys: torch.Tensor, probability: torch.Tensor, mass: float) -> torch.Tensor:
    """Return True for the tokens outside the smallest set, by rising key, that holds ``mass``; one always stays.

    Args:
        keys: [b, V] the order; of equal keys the first token comes first.
        probability: [b, V].
        mass: 0 to 1.
    """
    bins = _bins(keys)
    held = probability.new_zeros(len(keys), BINS, dtype=torch.float64)
    held.scatter_add_(-1, bins, probability.double())
    up_to = held.cumsum(-1)
    before = up_to - held
    surely = (up_to <= mass - SPARE).sum(-1, keepdim=True)  # whole bins inside the cut
    never = (before < mass + SPARE).sum(-1, keepdim=True)  # the first whole bin outside of it
    dropped = bins >= surely
    for row, (first, last) in enumerate(torch.cat([surely, never], -1).tolist()):
        near = ((bins[row] >= first) & (bins[row] < last)).nonzero()[:, 0]
        places = near[keys[row, near].sort(stable=True).indices]
        ordered = probability[row, places]
        start = before[row, first] if first < BINS else up_to[row, -1]
        running = (start + ordered.double().cumsum(-1)).to(ordered.dtype)
        dropped[row, places[running - ordered < mass]] = False
    return dropped.scatter(-1, keys.argmin(-1, keepdim=True), False)


def _bins(keys: torch.Tensor) -> torch.Tensor:
    """The bin of every token, [b, V] int64, in the order of the keys; equal keys share one, infinity is in the last."""
    low = keys.amin(-1, keepdim=True)
    high = keys.amax(-1, keepdim=True)
    if not bool(torch.isfinite(high).all()):
        high = torch.where(torch.isfinite(keys), keys, low).amax(-1, keepdim=True)
    scale = (BINS - 1) / (high - low).clamp(min=torch.finfo(keys.dtype).tiny * BINS)
    return (keys - low).mul_(scale).clamp_(0, BINS - 1).long()
