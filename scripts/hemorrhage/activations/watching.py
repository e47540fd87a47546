"""Seeing the input of every target just before its weight multiplies it, and which targets share one."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import re
from collections.abc import Callable, Iterator

import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from transformers import PreTrainedModel

from hemorrhage.architecture import experts
from hemorrhage.architecture.targets import Target, blocks, find

TOKENS = 8  # enough for the discovery pass: only which tensors meet is looked at, never their values
See = Callable[[Target, torch.Tensor], None]
Wanted = Callable[[Target], bool]


@dataclasses.dataclass(frozen=True)
class Planned:
    """A group that the discovery pass found: its targets and the norm that makes its input."""

    targets: tuple[Target, ...]
    producer: str | None


@contextlib.contextmanager
def watch(targets: list[Target], see: See, wanted: Wanted, first: bool = False) -> Iterator[None]:
    """Call ``see(target, x)`` whenever a target is about to multiply x [..., in].

    Experts are seen one after the other, all first projections before all ``down_proj``, with the weights they have
    then; an expert that nobody chose is seen with 0 rows.

    Args:
        targets: the targets to watch.
        see: may change the weights of the target; the pass goes on with them.
        wanted: inputs of other targets are not made (experts) or not shown.
        first: show the input before activation quantizers (attachments) change it.
    """
    functional = {id(target.parameter): target for target in targets if target.kind == "functional"}
    with contextlib.ExitStack() as stack:
        for target in targets:
            if target.kind != "expert":
                hook = _input_hook(target, see, wanted)
                stack.callback(target.module.register_forward_pre_hook(hook, with_kwargs=True, prepend=first).remove)
        for module, members in _fused(targets).items():
            hook = _experts_hook(members, see, wanted)
            stack.callback(module.register_forward_pre_hook(hook, with_kwargs=True).remove)
        if functional:
            stack.enter_context(_Functional(functional, see, wanted))
        yield


def discover(model: PreTrainedModel, tokens: torch.Tensor) -> list[list[Planned]]:
    """Return the groups of every block, in the order in which they run, found by one pass over a few tokens.

    Targets that no token reached are grouped like their siblings: expert 5 like expert 3.

    Args:
        model: a causal LM.
        tokens: [N, L] int64; only the first few tokens are used.
    """
    found = _Discovery(model)
    with torch.no_grad(), found.hooks():
        model.base_model(input_ids=tokens[:1, :TOKENS], use_cache=False)
    return found.groups()


class _Functional(TorchFunctionMode):
    """Sees products with a weight whose module is never called: ``weight @ x`` and ``linear(x, weight)``."""

    def __init__(self, targets: dict[int, Target], see: See, wanted: Wanted) -> None:
        super().__init__()
        self.targets, self.see, self.wanted = targets, see, wanted

    def __torch_function__(self, func, types, args=(), kwargs=None):
        name = getattr(func, "__name__", "")
        if name in ("__matmul__", "matmul") and id(args[0]) in self.targets:
            self._show(self.targets[id(args[0])], args[1].transpose(-1, -2))
        elif name == "linear" and len(args) > 1 and id(args[1]) in self.targets:
            self._show(self.targets[id(args[1])], args[0])
        return func(*args, **(kwargs or {}))

    def _show(self, target: Target, x: torch.Tensor) -> None:
        if self.wanted(target):
            self.see(target, x)


class _Discovery:
    """Notes which tensor each target reads, which norm made it and who else reads it."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.targets = find(model)
        self.path, self.layers = blocks(model)
        self.read: dict[Target, tuple] = {}
        self.made: dict[tuple, str] = {}
        self.elsewhere: set[tuple] = set()
        self.kept: list[torch.Tensor] = []  # keeps addresses from being used twice

    @contextlib.contextmanager
    def hooks(self) -> Iterator[None]:
        """Install what takes the notes."""
        own = {id(target.module) for target in self.targets}
        with contextlib.ExitStack() as stack:
            stack.enter_context(watch(self.targets, self._note, lambda target: True, first=True))
            for name, module in self.layers.named_modules(prefix=self.path):
                if "norm" in type(module).__name__.lower():
                    stack.callback(module.register_forward_hook(functools.partial(self._norm, name)).remove)
                elif id(module) not in own and not any(True for _ in module.children()):
                    stack.callback(module.register_forward_pre_hook(self._other).remove)
            yield

    def groups(self) -> list[list[Planned]]:
        """The groups by block."""
        members: dict[tuple, list[Target]] = {}
        for target, key in self.read.items():
            members.setdefault((target.block, key), []).append(target)
        planned = [Planned(tuple(group), self._producer(group, key)) for (_, key), group in members.items()]
        planned += _like_siblings([target for target in self.targets if target not in self.read], planned)
        return [[group for group in planned if group.targets[0].block == block] for block in range(len(self.layers))]

    def _note(self, target: Target, x: torch.Tensor) -> None:
        # each expert reads rows of its own; rows that are empty have no address
        self.read.setdefault(target, (target.name,) if target.kind == "expert" else self._key(x))

    def _norm(self, name: str, module: nn.Module, args: tuple, out: torch.Tensor) -> None:
        self.made[self._key(out)] = name

    def _other(self, module: nn.Module, args: tuple) -> None:
        if any(True for _ in module.parameters()):
            self.elsewhere.update(self._key(x) for x in args[:1])

    def _key(self, x: torch.Tensor) -> tuple:
        """The same for two views of one tensor with nothing written in between."""
        self.kept.append(x)
        return (x.data_ptr(), x.numel(), x._version)

    def _producer(self, group: list[Target], key: tuple) -> str | None:
        return None if key in self.elsewhere else self.made.get(key)


def _like_siblings(unread: list[Target], planned: list[Planned]) -> list[Planned]:
    """Group the targets that no token reached: by the group of a target whose name differs only in numbers."""
    shape = {
        _pattern(target.name): [_pattern(mate.name) for mate in group.targets]
        for group in planned
        for target in group.targets
    }
    groups: dict[tuple, list[Target]] = {}
    for target in unread:
        mates = shape.get(_pattern(target.name), [target.name])
        groups.setdefault((tuple(re.findall(r"\d+", target.name)), tuple(mates)), []).append(target)
    return [Planned(tuple(group), None) for group in groups.values()]


def _pattern(name: str) -> str:
    return re.sub(r"\d+", "*", name)


def _fused(targets: list[Target]) -> dict[nn.Module, list[Target]]:
    """The targets of every fused expert module, first projections first."""
    members: dict[nn.Module, list[Target]] = {}
    for target in targets:
        if target.kind == "expert":
            members.setdefault(target.module, []).append(target)
    return members


def _input_hook(target: Target, see: See, wanted: Wanted) -> Callable:
    def hook(module: nn.Module, args: tuple, kwargs: dict) -> None:
        if wanted(target):
            see(target, args[0] if args else next(iter(kwargs.values())))

    return hook


def _experts_hook(members: list[Target], see: See, wanted: Wanted) -> Callable:
    def hook(module: nn.Module, args: tuple, kwargs: dict) -> None:
        hidden, chosen = experts.routed(args, kwargs)
        for target in members:
            if wanted(target):
                index = int(target.expert or 0)
                x = experts.rows(hidden, chosen, index)
                down = target.attribute == "down_proj"
                see(target, experts.intermediate(module, index, x) if down else x)

    return hook
