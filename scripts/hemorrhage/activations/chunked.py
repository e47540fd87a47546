"""The walk for a calibration batch that does not fit: block by block in chunks, with one block's activations at a time.

The inputs of the first block and the other arguments of every block (masks, position embeddings) are caught in a pass
in which the blocks do nothing. Then each block is called once per chunk and group, up to the group's input, and once
more for what it hands to the next block.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from hemorrhage.activations.inputs import Group, Statistics
from hemorrhage.activations.watching import Planned, watch
from hemorrhage.architecture.targets import Target, blocks


class _Reached(Exception):
    """Every statistic of the stage has this chunk; the rest of the block need not run."""


class Block:
    """One block and, for every chunk, the arguments of its call besides the hidden states."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.calls: list[tuple[tuple, dict]] = []
        self.by_name = False

    def caught(self, args: tuple, kwargs: dict) -> torch.Tensor:
        """Keep the arguments of one chunk, sharing what equals the first chunk's; returns the hidden states."""
        self.by_name = not args
        kwargs = dict(kwargs)
        hidden = kwargs.pop("hidden_states") if self.by_name else args[0]
        rest = (args[1:], kwargs)
        self.calls.append(_shared(rest, self.calls[0]) if self.calls else rest)
        return hidden

    def __call__(self, hidden: torch.Tensor, chunk: int) -> torch.Tensor:
        """Run the block on one chunk; returns the hidden states that the next block gets."""
        args, kwargs = self.calls[chunk]
        if self.by_name:
            out = self.module(*args, hidden_states=hidden, **kwargs)
        else:
            out = self.module(hidden, *args, **kwargs)
        return out if isinstance(out, torch.Tensor) else out[0]


def walk(
    model: PreTrainedModel,
    chunks: tuple[torch.Tensor, ...],
    plan: list[list[Planned]],
    visit: Callable[[Group], None],
    order: str,
    statistics: tuple[str, ...],
) -> None:
    """Show every group of ``plan``, as ``calibration.walk`` says; ``chunks`` are [n, L] int64 on the model's device."""
    layers, hidden = catch(model, chunks)
    for block, groups in zip(layers, plan, strict=True):
        for stage in [groups] if order == "block" else _stages(groups):
            sums = {planned: Statistics(planned.targets[0].in_features, statistics, model.device) for planned in stage}
            _gather(block, hidden, sums)
            for planned in stage:
                visit(Group(planned.targets, planned.targets[0].block, planned.producer, sums[planned]))
        for index, x in enumerate(hidden):
            hidden[index] = block(x, index)


def _gather(block: Block, hidden: list[torch.Tensor], sums: dict[Planned, Statistics]) -> None:
    """Sum the inputs of one stage's groups over all chunks."""
    planned_of = {target: planned for planned in sums for target in planned.targets}
    missing: set[Planned] = set()

    def wanted(target: Target) -> bool:
        return planned_of[target] in missing

    def see(target: Target, x: torch.Tensor) -> None:
        sums[planned_of[target]].add(x)
        missing.discard(planned_of[target])
        if not missing:
            raise _Reached

    with watch(list(planned_of), see, wanted):
        for index, x in enumerate(hidden):
            missing.update(sums)
            with contextlib.suppress(_Reached):
                block(x, index)


def _stages(groups: list[Planned]) -> list[list[Planned]]:
    """Groups that one sweep can serve: the experts' first projections together, their ``down_proj`` together."""
    stages: dict[object, list[Planned]] = {}
    for planned in groups:
        target = planned.targets[0]
        stages.setdefault(id(target.parameter), []).append(planned)
    return list(stages.values())


def catch(model: PreTrainedModel, chunks: tuple[torch.Tensor, ...]) -> tuple[list[Block], list[torch.Tensor]]:
    """Return the blocks with their arguments, and the hidden states that enter the first one, by chunk."""
    _, modules = blocks(model)
    layers = [Block(module) for module in modules]
    shapes = tuple_sizes(model, modules, chunks[0])
    hidden: list[torch.Tensor] = []
    with contextlib.ExitStack() as stack:
        for block, size in zip(layers, shapes, strict=True):
            stack.enter_context(_idle(block, size, hidden, block is layers[0]))
        for tokens in chunks:
            model.base_model(input_ids=tokens, use_cache=False)
    return layers, hidden


@contextlib.contextmanager
def _idle(block: Block, size: int | None, hidden: list[torch.Tensor], first: bool) -> Iterator[None]:
    """Let a block hand its input on and keep its arguments."""

    def forward(*args: object, **kwargs: object) -> object:
        x = block.caught(args, kwargs)
        if first:
            hidden.append(x.clone())
        return x if size is None else (x, *[None] * (size - 1))

    before = vars(block.module).get("forward")
    block.module.forward = forward
    try:
        yield
    finally:
        if before is None:
            del block.module.forward
        else:
            block.module.forward = before


def tuple_sizes(model: PreTrainedModel, modules: nn.ModuleList, tokens: torch.Tensor) -> list[int | None]:
    """For every block the length of the tuple that it returns, None if it returns a tensor."""
    sizes: dict[nn.Module, int | None] = {}

    def note(module: nn.Module, args: tuple, out: object) -> None:
        sizes[module] = None if isinstance(out, torch.Tensor) else len(out)  # type: ignore[arg-type]

    with contextlib.ExitStack() as stack:
        for module in modules:
            stack.callback(module.register_forward_hook(note).remove)
        model.base_model(input_ids=tokens[:1, :2], use_cache=False)
    missing = [index for index, module in enumerate(modules) if module not in sizes]
    if missing:
        raise ValueError(f"blocks {missing} did not run; the model has {len(modules)}: check num_hidden_layers.")
    return [sizes[module] for module in modules]


def _shared(value: Any, known: Any) -> Any:
    """Return ``value`` with every tensor that equals the one at the same place in ``known`` replaced by it."""
    if isinstance(value, torch.Tensor) and isinstance(known, torch.Tensor):
        same = value.shape == known.shape and value.dtype == known.dtype and torch.equal(value, known)
        return known if same else value
    if isinstance(value, dict) and isinstance(known, dict):
        return {key: _shared(item, known.get(key)) for key, item in value.items()}
    if type(value) in (tuple, list) and type(value) is type(known):
        return type(value)(_shared(a, b) for a, b in zip(value, known, strict=True))
    return value
