"""The one-pass walk over the targets that calibrated methods are written with.

``walk`` runs the calibration tokens through the model once. Just before a group of targets that share one input first
runs, ``visit(group)`` gets the statistics of that input and changes the weights; the pass goes on with them. So every
group sees what the already changed weights before it make (true-sequential, also inside a block), for the price of one
forward pass. Where the batch does not fit in memory, ``chunked.py`` gives the same results block by block.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import torch
from torch import nn
from transformers import PreTrainedModel

from hemorrhage.activations import chunked
from hemorrhage.activations.inputs import STATISTICS, Group, Statistics
from hemorrhage.activations.watching import Planned, discover, watch
from hemorrhage.architecture.targets import Target, blocks
from hemorrhage.settings import require, whole

ORDERS = ("linear", "block")
Visit = Callable[[Group], None]


def walk(
    model: PreTrainedModel,
    tokens: torch.Tensor,
    visit: Visit,
    *,
    order: str = "linear",
    statistics: tuple[str, ...] = ("square_mean",),
    chunk: int | None = None,
) -> None:
    """Show every group of targets with the statistics of its input over all tokens, in the order in which they run.

    A group that no token reaches (an expert nobody chose) is shown with ``rows`` 0 when its block is done.

    Args:
        model: a causal LM in eval mode; its weights are what ``visit`` makes of them.
        tokens: [N, L] int64 calibration tokens, on any device.
        visit: changes the weights of ``group.targets`` through ``Target.write``.
        order: "linear": a group sees the changed weights of all groups before it. "block": the reference codes'
            order, all groups of a block see the block as it was.
        statistics: what is summed: "mean", "square_mean", "gram", "absolute_max", "absolute_mean", "samples".
        chunk: number of sequences per forward; None runs all N at once.

    Raises:
        ValueError: for a wrong argument, or if a block did not run.
    """
    require(order, ORDERS, "order")
    for name in statistics:
        require(name, STATISTICS, "statistic")
    if tokens.dim() != 2 or 0 in tokens.shape:
        raise ValueError(f"calibration tokens have shape {list(tokens.shape)}; [sequences, length] is needed.")
    if chunk is not None and "samples" in statistics:
        raise ValueError("samples of the inputs are not kept in chunks; leave chunk empty or ask for other statistics.")
    tokens = tokens.to(model.device)
    plan = discover(model, tokens)
    with torch.no_grad():
        if chunk is not None and whole("chunk", chunk, 1) < len(tokens):
            chunked.walk(model, tokens.split(int(chunk)), plan, visit, order, statistics)
        else:
            run = _Pass(model, plan, visit, statistics)
            with run.hooks(order):
                model.base_model(input_ids=tokens, use_cache=False)
            run.check()


class _Pass:
    """One forward pass over all tokens, and what is still to be shown."""

    def __init__(
        self, model: PreTrainedModel, plan: list[list[Planned]], visit: Visit, statistics: tuple[str, ...]
    ) -> None:
        self.model, self.plan, self.visit, self.statistics = model, plan, visit, statistics
        self.waiting = {target: planned for block in plan for planned in block for target in planned.targets}
        self.gathered: dict[Planned, Statistics] = {}
        self.gathering = False
        self.ran: set[int] = set()

    @contextlib.contextmanager
    def hooks(self, order: str) -> Iterator[None]:
        """Install what shows the groups; everything is removed at the end, also after an error."""
        _, layers = blocks(self.model)
        with contextlib.ExitStack() as stack:
            stack.enter_context(watch(list(self.waiting), self._see, self._wanted))
            for index, block in enumerate(layers):
                if order == "block":
                    hook = self._before_block(index)
                    stack.callback(block.register_forward_pre_hook(hook, with_kwargs=True).remove)
                stack.callback(block.register_forward_hook(self._after_block(index)).remove)
            yield

    def check(self) -> None:
        """Raise ValueError if a block did not run: transformers leaves out blocks that the config does not count."""
        missing = sorted(set(range(len(self.plan))) - self.ran)
        if missing:
            raise ValueError(f"blocks {missing} did not run; the model has {len(self.plan)}: check num_hidden_layers.")

    def _wanted(self, target: Target) -> bool:
        planned = self.waiting.get(target)
        return planned is not None and planned not in self.gathered

    def _see(self, target: Target, x: torch.Tensor) -> None:
        planned = self.waiting[target]
        sums = Statistics(target.in_features, self.statistics, x.device)
        sums.add(x)
        self.gathered[planned] = sums
        if not self.gathering:
            self._show(planned)

    def _show(self, planned: Planned) -> None:
        target = planned.targets[0]
        sums = self.gathered.pop(planned, None)
        sums = sums or Statistics(target.in_features, self.statistics, self.model.device)
        for member in planned.targets:
            self.waiting.pop(member)
        self.visit(Group(planned.targets, target.block, planned.producer, sums))

    def _before_block(self, index: int) -> Callable:
        """Run the block as it is and gather all its statistics, then change it all."""

        def hook(block: nn.Module, args: tuple, kwargs: dict) -> None:
            if self.gathering:
                return
            self.gathering = True
            try:
                block(*args, **kwargs)
            finally:
                self.gathering = False
            self._show_rest(index)

        return hook

    def _after_block(self, index: int) -> Callable:
        def hook(block: nn.Module, args: tuple, out: object) -> None:
            if not self.gathering:
                self.ran.add(index)
                self._show_rest(index)

        return hook

    def _show_rest(self, index: int) -> None:
        for planned in self.plan[index]:
            if planned.targets[0] in self.waiting:
                self._show(planned)
