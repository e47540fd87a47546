"""A short fine-tune on calibration text: seeded, bounded in tokens, with the language-modelling loss."""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel

from hemorrhage.architecture import randomness, targets
from hemorrhage.architecture.targets import Target

WARM = 0.1  # share of the steps over which the learning rate rises
LARGEST_NORM = 1.0  # of the gradient


@dataclass(frozen=True)
class Course:
    """What is trained on, in which order.

    Attributes:
        tokens: [N, L] int64.
        batch: sequences in a step.
        steps: how many.
        rate: the largest learning rate; it rises over the first tenth of the steps and falls to 0 at the end.
        seed: of the order of the sequences.
    """

    tokens: Tensor
    batch: int
    steps: int
    rate: float
    seed: int

    def batches(self) -> Iterator[Tensor]:
        """Yield the batches [batch, L]: every sequence once before any comes again, each time in another order."""
        generator = randomness.generator(f"{self.seed} finetune")
        order: list[int] = []
        for _ in range(self.steps):
            while len(order) < self.batch:
                order += torch.randperm(len(self.tokens), generator=generator).tolist()
            chosen, order = order[: self.batch], order[self.batch :]
            yield self.tokens[chosen]

    def rate_at(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0."""
        warm = max(1, round(WARM * self.steps))
        return self.rate * min((step + 1) / warm, (self.steps - step) / max(1, self.steps - warm))


def full(model: PreTrainedModel, course: Course) -> tuple[int, list[float]]:
    """Train every target; returns (weights trained, loss of every step). Weights that are 0 stay 0.

    Weights in half precision are stepped in float32 and rounded after every step: below half a unit in their last
    place a step would change nothing (at 2e-5 in bfloat16, every weight above 2^-7).

    Raises ValueError if the loss is not finite.
    """
    found = targets.find(model)
    parameters = list({id(target.parameter): target.parameter for target in found}.values())
    zero = _zeros(found)
    with _only(model, parameters):
        losses = _train(model, parameters, course, lambda: _clear(found, zero))
    return sum(parameter.numel() for parameter in parameters), losses


def lora(model: PreTrainedModel, course: Course, rank: int, alpha: int) -> tuple[int, list[float]]:
    """Train a low-rank update of every target and merge it; returns (weights trained, loss of every step).

    Weights that are 0 stay 0: where a target has any, or its input is rounded, what is trained is the merged matrix
    with its zeros behind its rounded input, as it will be afterwards.

    Raises ValueError if a target cannot have an update (it is not called as a module), or the loss is not finite.
    """
    import peft

    found = targets.find(model)
    for target in found:
        if not target.called:
            raise ValueError(
                f"{target.name}: it is multiplied without a call of its module, so it can have no adapter; "
                "use adapter: full."
            )
    zero, asked = _zeros(found), {parameter: parameter.requires_grad for parameter in model.parameters()}
    config = peft.LoraConfig(
        r=rank,
        lora_alpha=alpha,
        lora_dropout=0.0,
        bias="none",
        target_modules=[target.module_name for target in found],
        fan_in_fan_out=any(target.transposed for target in found),
    )
    with torch.random.fork_rng(devices=[model.device] if model.device.type == "cuda" else []):
        torch.manual_seed(course.seed)
        wrapped = peft.get_peft_model(model, config)
    wrapped.eval()  # no dropout: the same seed gives the same weights
    for target in found:
        if target.name in zero or target.module._forward_pre_hooks:
            layer = wrapped.get_submodule(f"base_model.model.{target.module_name}")
            layer.forward = functools.partial(_merged, layer, target, zero.get(target.name))
    parameters = [parameter for parameter in wrapped.parameters() if parameter.requires_grad]
    losses = _train(model, parameters, course, lambda: None)
    wrapped.merge_and_unload(safe_merge=True)
    _forget(model)
    for parameter, value in asked.items():
        parameter.requires_grad_(value)
    _clear(targets.find(model), zero)
    return sum(parameter.numel() for parameter in parameters), losses


def _merged(layer: Any, target: Target, zero: Tensor | None, x: Tensor) -> Tensor:
    """The output of a layer with its update merged, hooks included; ``zero`` [out, in] is where it stays 0."""
    update = layer.get_delta_weight("default")  # as the parameter is stored
    if zero is not None:
        update = update.masked_fill(zero.T if target.transposed else zero, 0)
    weight = target.parameter.detach()
    return torch.func.functional_call(target.module, {target.attribute: (weight + update).to(weight.dtype)}, (x,))


def _train(model: PreTrainedModel, parameters: Sequence[nn.Parameter], course: Course, after) -> list[float]:
    """Follow a course with AdamW (no decay); ``after`` is called after every step. Returns the losses."""
    masters = [p if p.dtype == torch.float32 else nn.Parameter(p.detach().float()) for p in parameters]
    optimizer = torch.optim.AdamW(masters, lr=course.rate, weight_decay=0.0)
    losses = []
    with torch.enable_grad():
        for step, batch in enumerate(course.batches()):
            for group in optimizer.param_groups:
                group["lr"] = course.rate_at(step)
            logits = model(batch, use_cache=False).logits[:, :-1].float()
            loss = F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
            losses.append(float(loss.detach()))
            if not math.isfinite(losses[-1]):
                raise ValueError(
                    f"the loss of training step {step + 1} is not finite; the model is broken, or the "
                    "learning rate too large."
                )
            loss.backward()
            _move_gradients(parameters, masters)
            nn.utils.clip_grad_norm_(masters, LARGEST_NORM)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            _round_into(parameters, masters)
            after()
    return losses


def _move_gradients(parameters: Sequence[nn.Parameter], masters: Sequence[nn.Parameter]) -> None:
    for parameter, master in zip(parameters, masters, strict=True):
        if master is not parameter and parameter.grad is not None:
            master.grad, parameter.grad = parameter.grad.float(), None


@torch.no_grad()
def _round_into(parameters: Sequence[nn.Parameter], masters: Sequence[nn.Parameter]) -> None:
    for parameter, master in zip(parameters, masters, strict=True):
        if master is not parameter:
            parameter.copy_(master)


@contextlib.contextmanager
def _only(model: PreTrainedModel, parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    """Let gradients reach ``parameters`` alone; everything is as before at the end."""
    asked = {parameter: parameter.requires_grad for parameter in model.parameters()}
    model.requires_grad_(False)
    for parameter in parameters:
        parameter.requires_grad_(True)
    try:
        yield
    finally:
        for parameter, value in asked.items():
            parameter.requires_grad_(value)
            parameter.grad = None


def _zeros(found: Sequence[Target]) -> dict[str, Tensor]:
    """Where each target is 0, of those that are 0 anywhere: what was pruned stays pruned."""
    masks = {target.name: target.weight == 0 for target in found}
    return {name: mask for name, mask in masks.items() if bool(mask.any())}


@torch.no_grad()
def _clear(found: Sequence[Target], zero: dict[str, Tensor]) -> None:
    for target in found:
        if target.name in zero:
            target.weight.masked_fill_(zero[target.name], 0)


def _forget(model: PreTrainedModel) -> None:
    """Take away what the adapters' library left on the model, so that it is saved as the plain model that it is."""
    for name in ("peft_config", "_hf_peft_config_loaded"):
        vars(model).pop(name, None)
