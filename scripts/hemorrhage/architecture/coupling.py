"""Coupled structures: what goes together when a feed-forward channel or an attention head is removed.

A *structure* of one block is a set of equal units, each with rows in the matrices that make it and columns in the
matrix that reads it: the channels between up and down projection, or the groups of heads that share keys and values.
Removing a unit removes all its rows and columns, and nothing is computed for it any more.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import Tensor
from transformers import PreTrainedModel

from hemorrhage.architecture import feedforward, targets
from hemorrhage.architecture.targets import Target

KINDS = ("channels", "heads")
READERS = ("o_proj", "out_proj")  # of what heads make; their makers are q_proj, k_proj and v_proj everywhere


@dataclass(frozen=True)
class Structure:
    """The units of one kind in one block.

    Attributes:
        kind: "channels" or "heads"; a unit of heads is a key-value head with all its query heads.
        block: index of the block.
        makers: the matrices whose rows make the units, each with the rows [units, k] of every unit.
        reader: the matrix whose columns read them.
        columns: [units, k] columns of every unit in the reader.
    """

    kind: str
    block: int
    makers: tuple[tuple[Target, Tensor], ...]
    reader: Target
    columns: Tensor

    @property
    def units(self) -> int:
        """How many units there are."""
        return len(self.columns)

    @property
    def weights(self) -> int:
        """How many weights go with one unit."""
        rows = sum(len(rows[0]) * maker.in_features for maker, rows in self.makers)
        return rows + len(self.columns[0]) * self.reader.out_features


def find(model: PreTrainedModel, kinds: tuple[str, ...] = KINDS) -> list[Structure]:
    """Return the structures of every block, heads before channels, as they run.

    Raises ValueError if a block has no dense feed-forward part, or no separate matrices for queries, keys and values.
    """
    found: list[Structure] = []
    if "heads" in kinds:
        found += [_heads(model, block, members) for block, members in _by_block(model).items()]
    if "channels" in kinds:
        found += [_channels(part) for part in feedforward.find(model)]
    return sorted(found, key=lambda structure: structure.block)


def block_weights(model: PreTrainedModel) -> int:
    """Return the weights of the targets of one block; raises ValueError if the blocks differ."""
    by_block: dict[int, int] = {}
    for target in targets.find(model):
        by_block[target.block] = by_block.get(target.block, 0) + target.weight.numel()
    sizes = set(by_block.values())
    if len(sizes) != 1:
        raise ValueError(
            f"{type(model).__name__}: its blocks hold different numbers of weights, but a config has one "
            "width for all of them."
        )
    return sizes.pop()


def plan(model: PreTrainedModel, ratio: float, kinds: tuple[str, ...], multiple: int = 1) -> dict[str, int]:
    """Return how many units of each kind every block loses, so that its targets lose ``ratio`` of their weights.

    Groups of heads are few and large: with both kinds, as many of them go as the ratio holds whole ones, and channels
    make up for the rest (the "UL-MM" structure of FLAP's code). Some configs refuse a number of heads that does not
    divide the hidden size; then the nearest smaller number of groups goes. Of the channels the nearest multiple of
    ``multiple`` stays.

    Raises ValueError if nothing of a kind would stay.
    """
    first = {structure.kind: structure for structure in find(model, kinds) if structure.block == 0}
    wanted = ratio * block_weights(model)
    numbers: dict[str, int] = {}
    if "heads" in first:
        share = ratio * first["heads"].units if "channels" in first else wanted / first["heads"].weights
        numbers["heads"] = math.floor(share + 1e-9) if "channels" in first else math.floor(share + 0.5)
        left = first["heads"].units - numbers["heads"]
        while numbers["heads"] and left > 0 and not _accepts(model, left):
            numbers["heads"], left = numbers["heads"] - 1, left + 1
        wanted -= numbers["heads"] * first["heads"].weights
    if "channels" in first:
        stays = first["channels"].units - wanted / first["channels"].weights
        numbers["channels"] = first["channels"].units - math.ceil(stays / multiple - 0.5) * multiple
        numbers["channels"] = max(0, numbers["channels"])
    for kind, number in numbers.items():
        if number >= first[kind].units:
            raise ValueError(
                f"ratio: {ratio:g} of a block's weights would take {number} of its {first[kind].units} "
                f"{kind}; at least one must stay. Take less, or let both kinds share it."
            )
    return numbers


def _accepts(model: PreTrainedModel, groups: int) -> bool:
    """Whether the model's config may have this number of groups of heads."""
    config: Any = copy.deepcopy(model.config.get_text_config())
    held = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    config.num_attention_heads = config.num_attention_heads // held * groups
    try:
        config.validate()
    except StrictDataclassError:
        return False
    return True


def _by_block(model: PreTrainedModel) -> dict[int, dict[str, Target]]:
    """The targets of every block by the last part of their module's name."""
    blocks: dict[int, dict[str, Target]] = {}
    for target in targets.find(model):
        blocks.setdefault(target.block, {})[target.module_name.rpartition(".")[2]] = target
    return blocks


def _channels(part: feedforward.FeedForward) -> Structure:
    units = torch.arange(part.channels)[:, None]
    return Structure("channels", part.down.block, tuple((up, units) for up in part.ups), part.down, units)


def _heads(model: PreTrainedModel, block: int, members: dict[str, Target]) -> Structure:
    makers = [members[name] for name in ("q_proj", "k_proj", "v_proj") if name in members]
    reader = next((members[name] for name in READERS if name in members), None)
    if reader is None or len(makers) < 3:
        raise ValueError(
            f"{type(model).__name__}: block {block} has no separate matrices for queries, keys and values, "
            "so its heads cannot be removed as a whole; use structures: channels where it has those."
        )
    config: Any = model.config.get_text_config()
    groups = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    pairs = tuple((maker, _rows(maker.out_features, groups)) for maker in makers)
    return Structure("heads", block, pairs, reader, _rows(reader.in_features, groups))


def _rows(width: int, groups: int) -> Tensor:
    """Neighbours belong to one group: [groups, width / groups]."""
    return torch.arange(width).reshape(groups, -1)
