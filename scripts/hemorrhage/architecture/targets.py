"""Which weights can be changed, on any architecture: the *targets*.

A target is a weight matrix inside the blocks with a known input: the weight of an nn.Linear or of a transformers
Conv1D, one expert's slice of a fused expert tensor, or a weight that is multiplied without a call of its module
(``dt_proj`` of Mamba). Embeddings, the head, norms, routers, convolution kernels and state-space parameters are none.
Every target shows its weight as [out, in], however it is stored.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from hemorrhage.architecture import experts

UNKNOWN = "unknown use"
ROUTERS = ("gate", "router", "shared_expert_gate")


@dataclasses.dataclass(frozen=True, eq=False)
class Target:
    """One weight matrix that methods may change.

    Attributes:
        name: path of the parameter; a slice of a fused tensor has its index as suffix, ``...down_proj[3]``.
        block: index of the block that holds it.
        module: the module that holds the parameter.
        kind: "linear", "conv1d", "expert" or "functional" (multiplied without a call of the module).
        attribute: the parameter's name in the module.
        transposed: True if it is stored as [in, out].
        expert: index of the slice, None for a whole parameter.
    """

    name: str
    block: int
    module: nn.Module
    kind: str
    attribute: str = "weight"
    transposed: bool = False
    expert: int | None = None

    @property
    def parameter(self) -> nn.Parameter:
        """The parameter that holds the weight; for an expert the tensor of all experts."""
        return getattr(self.module, self.attribute)

    @property
    def module_name(self) -> str:
        """Path of the module in the model."""
        return self.name.split("[")[0].removesuffix(f".{self.attribute}")

    @property
    def weight(self) -> torch.Tensor:
        """The weight [out, in]: a view of the model's memory, without gradient. Clone what is to be kept."""
        stored = self.parameter.detach()
        stored = stored if self.expert is None else stored[self.expert]
        return stored.T if self.transposed else stored

    @property
    def out_features(self) -> int:
        """Number of output channels (rows of ``weight``)."""
        return self.weight.shape[0]

    @property
    def in_features(self) -> int:
        """Number of input channels (columns of ``weight``)."""
        return self.weight.shape[1]

    @property
    def called(self) -> bool:
        """True if a call of ``module`` sees exactly this target's input, so that a hook on it can change it."""
        return self.kind in ("linear", "conv1d")

    def write(self, new: torch.Tensor) -> None:
        """Write ``new`` [out, in] into the model, cast to its dtype. Raises ValueError for a shape or a value."""
        weight = self.weight
        if new.shape != weight.shape:
            raise ValueError(f"{self.name}: the new weight has shape {list(new.shape)}, not {list(weight.shape)}.")
        # A finite sum proves it in one pass; only another one is looked into.
        if not (torch.isfinite(new.sum()) or torch.isfinite(new).all()):
            raise ValueError(f"{self.name}: the new weight has values that are not finite.")
        weight.copy_(new)


def blocks(model: PreTrainedModel) -> tuple[str, nn.ModuleList]:
    """Return (path, list) of the repeated decoder blocks.

    Of the lists with as many entries as the config has blocks (of all lists if none has), it is the one with the most
    parameters. Raises ValueError if the model has no list.
    """
    lists = [(name, module) for name, module in model.named_modules() if isinstance(module, nn.ModuleList)]
    lists = [(name, module) for name, module in lists if len(module) > 0]
    if not lists:
        raise ValueError(f"{type(model).__name__} has no list of blocks; only models of repeated blocks are supported.")
    number = getattr(model.config.get_text_config(), "num_hidden_layers", None)
    fitting = [pair for pair in lists if len(pair[1]) == number] or lists
    return max(fitting, key=lambda pair: sum(parameter.numel() for parameter in pair[1].parameters()))


def find(model: PreTrainedModel) -> list[Target]:
    """Return all targets in the order of the blocks and of the modules in them; a shared module comes once."""
    targets, known = [], set()
    for block, name, module, parent in _modules(model):
        if id(module) not in known:
            known.add(id(module))
            targets += _targets_of(block, name, module, parent)
    return targets


def account(model: PreTrainedModel) -> dict[str, str]:
    """Return for every 2-D and 3-D parameter inside the blocks "target" or the reason why it is none.

    ``UNKNOWN`` stands for a parameter that no rule knows: an architecture with one needs a rule here.
    """
    chosen = {id(target.parameter) for target in find(model)}
    result = {}
    for _, name, module, parent in _modules(model):
        for attribute, parameter in module.named_parameters(recurse=False):
            if parameter.dim() in (2, 3):
                why = "target" if id(parameter) in chosen else _reason(name, attribute, module, parent)
                result[f"{name}.{attribute}"] = why
    return result


def _modules(model: PreTrainedModel) -> Iterator[tuple[int, str, nn.Module, nn.Module]]:
    """Yield (block, path, module, parent module) of everything inside the blocks."""
    path, layers = blocks(model)
    for index, block in enumerate(layers):
        inside = dict(block.named_modules(prefix=f"{path}.{index}"))
        for name, module in inside.items():
            yield index, name, module, inside.get(name.rpartition(".")[0], layers)


def _targets_of(block: int, name: str, module: nn.Module, parent: nn.Module) -> list[Target]:
    """The targets that one module holds itself."""
    if experts.is_fused(module):
        transposed = bool(module.is_transposed)
        slices = itertools.product((experts.first_projection(module), "down_proj"), range(experts.count(module)))
        return [
            Target(f"{name}.{attribute}[{index}]", block, module, "expert", attribute, transposed, index)
            for attribute, index in slices
        ]
    if isinstance(module, Conv1D):
        return [Target(f"{name}.weight", block, module, "conv1d", transposed=True)]
    if isinstance(module, nn.Linear) and not _is_router(name, module, parent):
        if tuple(module.weight.shape) != (module.out_features, module.in_features):
            raise ValueError(f"{name}: its weight is packed; the model must be loaded in a dense form.")
        return [Target(f"{name}.weight", block, module, "functional" if _is_functional(name, parent) else "linear")]
    return []


def _is_functional(name: str, parent: nn.Module) -> bool:
    """Mamba's time-step projection: its mixers multiply by ``dt_proj.weight`` and add the bias later."""
    return name.endswith(".dt_proj") and hasattr(parent, "x_proj") and hasattr(parent, "A_log")


def _is_router(name: str, module: nn.Module, parent: nn.Module) -> bool:
    """What chooses experts: a router class, its children, or a layer called gate or router beside experts."""
    if any("router" in type(part).__name__.lower() for part in (module, parent)):
        return True
    beside = any("expert" in child for child, _ in parent.named_children())
    return name.rpartition(".")[2] in ROUTERS and beside


def _reason(name: str, attribute: str, module: nn.Module, parent: nn.Module) -> str:
    """Why a parameter is no target."""
    if isinstance(module, nn.Embedding):
        return "embedding"
    if "norm" in type(module).__name__.lower():
        return "norm"
    if attribute.endswith("bias"):
        return "bias"
    if _is_router(name, module, parent):
        return "router"
    if isinstance(module, (nn.Conv1d, nn.Conv2d)):
        return "convolution kernel"
    if attribute in ("A_log", "D"):
        return "state-space parameter"
    return UNKNOWN
