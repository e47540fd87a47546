"""Regional gradients: how strongly each weight moves the size of its own block's output.

The loss of a block is the norm ‖f(X)‖ of its output on one sample; one backward pass through the block alone gives its
gradients. Memory is one block's activations on one sample, and no gradient of the whole model is ever made.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from hemorrhage.architecture import targets
from hemorrhage.methods import tensors


def gradients(model: PreTrainedModel, tokens: Tensor) -> dict[str, Tensor]:
    """Return per target name √(mean over samples of (∂‖f(X)‖/∂W)²), [out, in] float32; f is the target's block.

    Every block sees what the blocks before it make of one sample [1, L]. A target that the output does not depend on
    (an expert that no token reached) has zeros.

    Args:
        model: a causal LM in eval mode; nothing of it is changed.
        tokens: [N, L] int64 calibration tokens.

    Raises:
        ValueError: if a weight or a gradient is not finite.
    """
    found = targets.find(model)
    for target in found:
        tensors.require_finite(target.weight, target.name)
    sums = {id(target.parameter): torch.zeros_like(target.parameter, dtype=torch.float32) for target in found}
    with _watched(model, sums):
        for sample in tokens.to(model.device):
            model.base_model(input_ids=sample[None], use_cache=False)
    result = {}
    for target in found:
        total = sums[id(target.parameter)]
        total = total if target.expert is None else total[target.expert]
        root = (total.T if target.transposed else total).div(len(tokens)).sqrt().contiguous()
        result[target.name] = tensors.require_finite(root, f"the gradients of {target.name}")
    return result


@contextlib.contextmanager
def _watched(model: PreTrainedModel, sums: dict[int, Tensor]) -> Iterator[None]:
    """Let every block add its squared gradients to ``sums`` before it runs; everything is as before at the end."""
    asked = {parameter: parameter.requires_grad for parameter in model.parameters()}
    model.requires_grad_(False)
    _, layers = targets.blocks(model)
    with contextlib.ExitStack() as stack, torch.no_grad():
        for parameter, value in asked.items():
            stack.callback(parameter.requires_grad_, value)
        for layer in layers:
            own = {id(parameter): parameter for parameter in layer.parameters() if id(parameter) in sums}
            stack.callback(layer.register_forward_pre_hook(_backward(own, sums), with_kwargs=True).remove)
        yield


def _backward(own: dict[int, nn.Parameter], sums: dict[int, Tensor]) -> Callable:
    """The hook of one block: it runs the block once more, with gradients of its own targets."""

    def hook(block: nn.Module, args: tuple, kwargs: dict) -> None:
        for parameter in own.values():
            parameter.requires_grad_(True)
        with torch.enable_grad():
            out = block.forward(*args, **kwargs)
            loss = (out if isinstance(out, Tensor) else out[0]).float().norm()
            made = torch.autograd.grad(loss, list(own.values()), allow_unused=True)
        for key, gradient in zip(own, made, strict=True):
            own[key].requires_grad_(False)
            if gradient is not None:
                sums[key].add_(gradient.float().square())

    return hook
