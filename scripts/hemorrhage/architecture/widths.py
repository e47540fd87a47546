"""Cutting widths: matrices get fewer rows and columns, and config and modules are brought along.

transformers builds every block with the widths of the config, so all blocks lose the same number of units. What is
left is checked against the model that plain transformers would build from the new config.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from hemorrhage.architecture import attachments, blocks, targets
from hemorrhage.architecture.coupling import Structure
from hemorrhage.architecture.targets import Target
from hemorrhage.planning.local_config import NAMES

BIAS_FLAGS = ("attention_bias", "mlp_bias")


def counts(model: PreTrainedModel) -> tuple[int, int]:
    """Return (weights of all targets, parameters of the model)."""
    return (
        sum(target.weight.numel() for target in targets.find(model)),
        sum(parameter.numel() for parameter in model.parameters()),
    )


def require_possible(model: PreTrainedModel, structures: Sequence[Structure], numbers: Mapping[str, int]) -> None:
    """Raise ValueError unless a model from the config with ``numbers`` of units fewer has the matrices of a cut.

    Raised too if a step before this one put quantizers on inputs by channel.
    """
    for spec in attachments.attached(model):
        if any(isinstance(value, list | tuple) for value in spec.values()):
            raise ValueError(
                f"{spec.get('target')}: a step before this one rounds its input by channel; cut widths "
                "first and put quantizers on what is left."
            )
    config = copy.deepcopy(model.config)
    _narrow(config.get_text_config(), {s.kind: s.units - numbers.get(s.kind, 0) for s in structures}, structures)
    with torch.device("meta"):
        shapes = {name: parameter.shape for name, parameter in type(model)(config).named_parameters()}
    for structure in structures:
        reader = structure.reader
        wanted = reader.in_features - numbers.get(structure.kind, 0) * structure.columns.shape[1]
        if shapes[reader.name][0 if reader.transposed else 1] != wanted:
            raise ValueError(
                f"{type(model).__name__}: its config cannot say fewer {structure.kind} of the same width "
                f"({reader.name} would not have {wanted} columns); use another of the structures."
            )


def cut(model: PreTrainedModel, structures: Sequence[Structure], removed: Sequence[Sequence[int]]) -> None:
    """Remove units ``removed[i]`` of ``structures[i]`` from their matrices and from the config.

    Raises ValueError if the blocks lose different numbers of a kind, or plain transformers would build another model
    from the new config.
    """
    left = {structure.kind: structure.units - len(units) for structure, units in zip(structures, removed, strict=True)}
    for structure, units in zip(structures, removed, strict=True):
        if structure.units - len(units) != left[structure.kind]:
            raise ValueError(f"block {structure.block} would keep another number of {structure.kind} than the others.")
    _narrow(model.config.get_text_config(), left, structures)
    for structure, units in zip(structures, removed, strict=True):
        keep = torch.tensor([unit for unit in range(structure.units) if unit not in set(units)], dtype=torch.long)
        for maker, rows in structure.makers:
            resize(maker, rows=rows[keep].flatten())
        resize(structure.reader, columns=structure.columns[keep].flatten())
    adopt(model)


def resize(target: Target, rows: Tensor | None = None, columns: Tensor | None = None) -> None:
    """Keep the given rows (and their biases) and columns of a target's matrix."""
    weight, bias = target.weight, getattr(target.module, "bias", None)
    if rows is not None:
        weight = weight[rows.to(weight.device)]
        if bias is not None:
            target.module.bias = nn.Parameter(bias.detach()[rows.to(bias.device)].clone(), bias.requires_grad)
    if columns is not None:
        weight = weight[:, columns.to(weight.device)]
    put(target, weight)


def put(target: Target, weight: Tensor) -> None:
    """Give a target a matrix [out, in] of another size, in its dtype."""
    stored = (weight.T if target.transposed else weight).to(target.parameter.dtype)
    stored = stored.clone(memory_format=torch.contiguous_format)
    module: Any = target.module
    setattr(module, target.attribute, nn.Parameter(stored, target.parameter.requires_grad))
    for names, size in zip((("out_features", "nf"), ("in_features", "nx")), weight.shape, strict=True):
        for name in names:
            if hasattr(module, name):
                setattr(module, name, size)


def biased(model: PreTrainedModel, readers: Iterable[Target]) -> set[str]:
    """Give every matrix a bias of zeros that the config can say and the architecture lacks; returns which have one.

    Llama's config, for instance, has a flag for biases in attention and one in the feed-forward layers; a flag gives
    all matrices there a bias, so the others get one of zeros. Returned are the names of those ``readers`` that have a
    bias now.
    """
    readers = list(readers)
    for flag in BIAS_FLAGS:
        if getattr(model.config.get_text_config(), flag, None) is False:
            setattr(model.config.get_text_config(), flag, True)
            _add_biases(model, _rebuilt(model))
    return {reader.name for reader in readers if getattr(reader.module, "bias", None) is not None}


def adopt(model: PreTrainedModel) -> None:
    """Take over plain attributes (widths, numbers of heads) from a model built from the config, and compare the two.

    Raises ValueError if plain transformers would build a model of other shapes.
    """
    rebuilt = _rebuilt(model)
    fresh = dict(rebuilt.named_modules())
    for path, module in model.named_modules():
        for key, value in vars(fresh.get(path, nn.Module())).items():
            if isinstance(value, int | float) and not key.startswith("_") and key != "training" and key in vars(module):
                setattr(module, key, value)
    found, wanted = ({name: tuple(p.shape) for name, p in each.named_parameters()} for each in (model, rebuilt))
    for name in sorted(found.keys() | wanted.keys()):
        if found.get(name) != wanted.get(name):
            raise ValueError(
                f"{type(model).__name__}: a model loaded from the new config would have {name} of shape "
                f"{wanted.get(name)}, not {found.get(name)}: its config cannot say these widths."
            )
    blocks.check(model)


def _rebuilt(model: PreTrainedModel) -> PreTrainedModel:
    with torch.device("meta"):
        return type(model)(copy.deepcopy(model.config))


def _add_biases(model: PreTrainedModel, rebuilt: PreTrainedModel) -> None:
    """Biases of zeros wherever the model built from the config has one and this one has none."""
    known = dict(model.named_parameters())
    for name, parameter in rebuilt.named_parameters():
        if name not in known and name.endswith(".bias"):
            module = model.get_submodule(name.removesuffix(".bias"))
            weight: Any = module.weight
            zeros = torch.zeros(parameter.shape, dtype=weight.dtype, device=weight.device)
            module.bias = nn.Parameter(zeros, weight.requires_grad)


def _narrow(config: Any, left: Mapping[str, int], structures: Sequence[Structure]) -> None:
    """Write the numbers of units that are left into a config; heads keep their width."""
    for structure in structures:
        if structure.block == 0 and structure.kind == "channels":
            _set(config, "intermediate_size", left["channels"])
        elif structure.block == 0:
            query, key = (rows for _, rows in structure.makers[:2])
            size = key.shape[1]
            config.head_dim = size
            _set(config, "num_attention_heads", left["heads"] * query.shape[1] // size)
            if hasattr(config, "num_key_value_heads"):
                config.num_key_value_heads = left["heads"]


def _set(config: Any, fact: str, value: int) -> None:
    """Set a width under the name that this architecture's config has for it."""
    name = next((name for name in NAMES[fact] if name in vars(config)), fact)
    setattr(config, name, value)
