"""Which weights write to the residual stream: the *writers* of a block, found by running it.

A writer is a target (``o_proj``, ``down_proj``, ``out_proj`` ...) as wide as the residual stream whose input is neither
the block's own input nor the output of a norm: those are what reads the stream. Where a norm reads exactly what a
writer made (Gemma 2 normalises each branch before adding it), the norm's gain is the writer, because a factor before
it would be undone. Every expert's ``down_proj`` writes. ``require_silent`` checks what was found: with its writers at 0
a block must give its input back.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Collection, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from hemorrhage.activations import watching
from hemorrhage.architecture import norms
from hemorrhage.architecture.targets import Target, blocks

PROBED = 8  # tokens of a pass that only looks at which tensors meet


@dataclasses.dataclass(frozen=True)
class Writer:
    """One module that writes to the residual stream.

    Attributes:
        block: index of its block.
        module: the module.
        attribute: its weight's name; the bias is called like it, or ``bias``.
        is_norm: True if it is a norm, whose gain is scaled.
    """

    block: int
    module: nn.Module
    attribute: str
    is_norm: bool = False

    @torch.no_grad()
    def scale(self, factor: float) -> None:
        """Multiply all that the module writes by ``factor``; 0 makes exact zeros."""
        if self.is_norm:
            norms.scale(self.module, factor)
            return
        biases = ("bias", f"{self.attribute}_bias")
        for parameter in (getattr(self.module, name, None) for name in (self.attribute, *biases)):
            if isinstance(parameter, Tensor):
                parameter.copy_(parameter * factor if factor else torch.zeros_like(parameter))


def find(model: PreTrainedModel) -> list[Writer]:
    """Return the writers of every block, by one pass over a few tokens.

    Raises ValueError if a block has none.
    """
    notes = _Notes(model)
    writers = notes.writers()
    missing = sorted(set(range(len(notes.layers))) - {writer.block for writer in writers})
    if missing:
        raise ValueError(
            f"{type(model).__name__}: no weight of blocks {missing} is seen to write to the residual "
            "stream, so its update cannot be scaled."
        )
    return writers


def scale(model: PreTrainedModel, places: Collection[int], factor: float) -> None:
    """Multiply the residual updates of some blocks by a factor, in their weights."""
    if factor == 1 or not places:
        return
    for writer in find(model):
        if writer.block in places:
            writer.scale(factor)


@torch.no_grad()
def require_silent(model: PreTrainedModel, places: Collection[int]) -> None:
    """Raise ValueError unless every one of these blocks gives exactly its input back."""
    layers = blocks(model)[1]
    loud: list[int] = []

    def compare(index: int, _module: nn.Module, args: tuple, kwargs: dict, out: object) -> None:
        before = args[0] if args else kwargs["hidden_states"]
        after = out if isinstance(out, Tensor) else out[0]  # type: ignore[index]
        if not torch.equal(before.nan_to_num(), after.nan_to_num()):  # what is not finite is refused elsewhere
            loud.append(index)

    with contextlib.ExitStack() as stack:
        for index in places:
            hook = functools.partial(compare, index)
            stack.callback(layers[index].register_forward_hook(hook, with_kwargs=True).remove)
        model.base_model(input_ids=_few_tokens(model), use_cache=False)
    if loud:
        raise ValueError(
            f"{type(model).__name__}: blocks {loud} change their input although all that was found to "
            "write to the residual stream is 0; this architecture cannot be given identity blocks."
        )


class _Notes:
    """What reads and what makes each tensor of a block, noted during one pass."""

    def __init__(self, model: PreTrainedModel) -> None:
        embedding: Any = model.get_input_embeddings()
        self.width = embedding.weight.shape[1]
        self.path, self.layers = blocks(model)
        tokens = _few_tokens(model)
        planned = [group for block in watching.discover(model, tokens) for group in block]
        # a group's producer is None if others read its norm too; the key of every norm's output is noted here
        self.targets = [target for group in planned for target in group.targets]
        self.read: dict[int, tuple] = {}
        self.made: dict[tuple, int] = {}
        self.sources: set[tuple] = set()
        self.after: dict[int, nn.Module] = {}
        self.kept: list[Tensor] = []
        with torch.no_grad(), self._hooks():
            model.base_model(input_ids=tokens, use_cache=False)

    def writers(self) -> list[Writer]:
        """The writers, each module once, by block."""
        found = {id(target.module): self._writer(target) for target in self.targets if self._writes(target)}
        return sorted(found.values(), key=lambda writer: writer.block)

    def _writes(self, target: Target) -> bool:
        if target.kind == "expert":
            return target.attribute == "down_proj"
        read = self.read.get(id(target.module))
        return target.out_features == self.width and read is not None and read not in self.sources

    def _writer(self, target: Target) -> Writer:
        norm = self.after.get(id(target.module))
        return Writer(target.block, norm or target.module, "weight" if norm else target.attribute, norm is not None)

    @contextlib.contextmanager
    def _hooks(self) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            for layer in self.layers:
                stack.callback(layer.register_forward_pre_hook(self._enter, with_kwargs=True).remove)
                for module in layer.modules():
                    if norms.is_norm(module):
                        stack.callback(module.register_forward_pre_hook(self._norm_reads).remove)
                        stack.callback(module.register_forward_hook(self._norm_makes).remove)
            for module in {target.module for target in self.targets if target.called}:
                stack.callback(module.register_forward_pre_hook(self._target_reads).remove)
                stack.callback(module.register_forward_hook(self._target_makes).remove)
            yield

    def _enter(self, _module: nn.Module, args: tuple, kwargs: dict) -> None:
        self.sources.add(self._key(args[0] if args else kwargs["hidden_states"]))

    def _norm_reads(self, module: nn.Module, args: tuple) -> None:
        maker = self.made.get(self._key(args[0]))
        if maker is not None and args[0].shape[-1] == self.width:
            self.after[maker] = module

    def _norm_makes(self, _module: nn.Module, _args: tuple, out: Tensor) -> None:
        self.sources.add(self._key(out))

    def _target_reads(self, module: nn.Module, args: tuple) -> None:
        self.read[id(module)] = self._key(args[0])

    def _target_makes(self, module: nn.Module, _args: tuple, out: Tensor) -> None:
        self.made[self._key(out)] = id(module)

    def _key(self, x: Tensor) -> tuple:
        """The same for two views of one tensor with nothing written in between."""
        self.kept.append(x)  # keeps addresses from being used twice
        return (x.data_ptr(), x.numel(), x._version)


def _few_tokens(model: PreTrainedModel) -> Tensor:
    embedding: Any = model.get_input_embeddings()
    return torch.arange(min(PROBED, len(embedding.weight)), device=model.device)[None]
