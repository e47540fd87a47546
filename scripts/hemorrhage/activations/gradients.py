"""The size of the loss gradient of every target, over calibration samples.

One backward pass a sample. Each parameter's gradient is added to its sum and freed the moment it is complete, so that
beside the sums only one gradient exists at a time; gradients of anything that is no target are never made.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel

from hemorrhage.architecture import targets
from hemorrhage.methods import tensors
from hemorrhage.settings import require

NORMS = ("l1", "l2")


def collect(model: PreTrainedModel, tokens: Tensor, norm: str) -> dict[str, Tensor]:
    """Return per target name the aggregated gradient magnitude [out, in], float32.

    The loss of a sample is the mean cross-entropy (nats) of its tokens after the first. Magnitudes are aggregated
    over samples as means, so that they do not grow with the number of samples.

    Args:
        model: any supported causal LM.
        tokens: [N, L] int64 token ids.
        norm: "l2", √(mean of g²), or "l1", the mean of |g|.

    Raises:
        ValueError: if ``norm`` is unknown or a gradient is not finite.
    """
    require(norm, NORMS, "norm")
    found = targets.find(model)
    sums = {
        id(target.parameter): torch.zeros(target.parameter.shape, dtype=torch.float32, device=tokens.device)
        for target in found
    }

    def add(parameter: nn.Parameter) -> None:
        assert parameter.grad is not None  # the hook runs when it is complete
        gradient, total = parameter.grad.float(), sums[id(parameter)]
        total.add_(gradient.abs()) if norm == "l1" else total.addcmul_(gradient, gradient)
        parameter.grad = None

    with _only(model, {id(target.parameter): target.parameter for target in found}.values(), add):
        for sample in tokens:
            logits = model(sample[None], use_cache=False).logits[0, :-1]
            F.cross_entropy(logits.float(), sample[1:]).backward()
    for total in sums.values():
        total.div_(len(tokens))
        if norm == "l2":
            total.sqrt_()
    return {
        target.name: tensors.require_finite(_slice(target, sums[id(target.parameter)]), target.name) for target in found
    }


@contextlib.contextmanager
def _only(model: PreTrainedModel, parameters, add: Callable[[nn.Parameter], None]) -> Iterator[None]:
    """Let gradients reach ``parameters`` alone, and hand each to ``add``; everything is as before at the end."""
    asked = {parameter: parameter.requires_grad for parameter in model.parameters()}
    model.requires_grad_(False)
    handles = []
    try:
        for parameter in parameters:
            parameter.requires_grad_(True)
            handles.append(parameter.register_post_accumulate_grad_hook(add))
        with torch.enable_grad():
            yield
    finally:
        for handle in handles:
            handle.remove()
        for parameter, value in asked.items():
            parameter.requires_grad_(value)
            parameter.grad = None


def _slice(target: targets.Target, stored: Tensor) -> Tensor:
    """The part [out, in] of a tensor in the shape of the target's parameter that belongs to the target."""
    own = stored if target.expert is None else stored[target.expert]
    return (own.T if target.transposed else own).contiguous()
