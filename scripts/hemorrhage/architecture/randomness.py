"""Random weights from seeds made of names: the same on every device, whatever else draws before."""

from __future__ import annotations

import hashlib
from collections.abc import Collection

import torch
from torch import Tensor
from transformers import PreTrainedModel

from hemorrhage.architecture.targets import blocks


def generator(words: object) -> torch.Generator:
    """Return a CPU generator whose seed is a digest of ``words``."""
    digest = hashlib.blake2b(str(words).encode(), digest_size=7).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little"))


def normal(like: Tensor, words: object) -> Tensor:
    """Return standard normal numbers with the shape, dtype and device of ``like``; drawn on the CPU in float32."""
    return torch.randn(like.shape, generator=generator(words)).to(like.device, like.dtype)


def noisy(weight: Tensor, sigma: float, words: object) -> Tensor:
    """Return ``weight`` with noise of ``sigma`` times its standard deviation."""
    if sigma == 0:
        return weight.clone()
    return weight + sigma * weight.std() * normal(weight, words)


@torch.no_grad()
def initialise(model: PreTrainedModel, places: Collection[int], seed: int) -> None:
    """Draw the weights of some blocks as the architecture draws them; the global generator is left as it was."""
    layers = blocks(model)[1]
    with torch.random.fork_rng(devices=[model.device] if model.device.type == "cuda" else []):
        torch.manual_seed(int(generator(f"{seed} blocks").initial_seed() % 2**63))
        for place in places:
            for name, module in layers[place].named_modules():
                for parameter in module.parameters(recurse=False):
                    parameter.__dict__.pop("_is_hf_initialized", None)  # else transformers takes it for a loaded one
                model._init_weights(module)
                _require_drawn(model, place, name, module)


def _require_drawn(model: PreTrainedModel, place: int, name: str, module: torch.nn.Module) -> None:
    for attribute, parameter in module.named_parameters(recurse=False):
        if not bool(torch.isfinite(parameter).all()):
            raise ValueError(
                f"{type(model).__name__}: its own initialisation leaves {attribute} of {name} in block "
                f"{place} not finite."
            )
