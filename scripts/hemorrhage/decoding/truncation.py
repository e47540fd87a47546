"""Cutting a distribution to the first tokens, in some order, that together hold a share of the probability."""

from __future__ import annotations

import torch

HEAD = 1024  # tokens that are sorted first; the whole vocabulary only where they hold too little


def beyond_mass(keys: torch.Tensor, probability: torch.Tensor, mass: float) -> torch.Tensor:
    """Return True for the tokens outside the smallest set, by rising key, that holds ``mass``; one always stays.

    Args:
        keys: [b, V] the order.
        probability: [b, V].
        mass: 0 to 1.
    """
    vocabulary = keys.shape[-1]
    places = keys.topk(min(HEAD, vocabulary), dim=-1, largest=False).indices
    before = _mass_before(probability, places)
    if places.shape[-1] < vocabulary and not bool((before[..., -1] >= mass).all()):
        places = keys.sort(dim=-1, stable=True).indices
        before = _mass_before(probability, places)
    kept = before < mass
    kept[..., 0] = True
    return ~torch.zeros_like(probability, dtype=torch.bool).scatter(-1, places, kept)


def _mass_before(probability: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    ordered = probability.gather(-1, places)
    return ordered.cumsum(-1) - ordered
