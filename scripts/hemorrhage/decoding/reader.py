"""A model and its cache over a batch of token sequences: what every loop over tokens reads with."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from hemorrhage.architecture.targets import blocks
from hemorrhage.measuring.residuals import watched

if TYPE_CHECKING:
    from transformers import PreTrainedModel

HIDDEN, BLOCKS = "hidden", "blocks"


@dataclass
class Seen:
    """What has been read so far, for decoders that look further than the logits of the next token.

    Attributes:
        model: the model.
        tokens: [b, T] int64, prompt and new tokens, padded on the left with 0.
        mask: [b, T] int64, 0 where ``tokens`` is padding.
        hidden: [b, T, d] float32 inputs of the output embedding at every place, if they were asked for.
        blocks: [b, d] outputs of every block at the last place, if they were asked for.
        other: [b, V] float32 logits of the other variant that the decoder names, if it names one.
    """

    model: PreTrainedModel
    tokens: torch.Tensor
    mask: torch.Tensor
    hidden: torch.Tensor | None = None
    blocks: list[torch.Tensor] = field(default_factory=list)
    other: torch.Tensor | None = None

    def states(self) -> torch.Tensor:
        """Return ``hidden``. Raises ValueError if it was not asked for."""
        if self.hidden is None:
            raise ValueError("this decoder looks at hidden states, which were not kept; it must name them in KEEPS.")
        return self.hidden


class Reader:
    """A model and its cache over a batch of token sequences that grows by one token a row.

    Sequences of unequal length are padded on the left, masked, and get the positions they would have alone. The
    cache is the model's own: keys and values, or the recurrent state of a state-space model.

    Attributes:
        logits: [b, V] float32 for the token after the last one read; never nan.
        seen: what has been read.
    """

    def __init__(self, model: PreTrainedModel, sequences: Sequence[Sequence[int]], keep: Iterable[str] = ()) -> None:
        """Read the sequences; ``keep`` names what ``seen`` holds beside tokens: "hidden", "blocks".

        Raises ValueError if a sequence is empty.
        """
        if not all(sequences):
            raise ValueError("a prompt without a token cannot be continued.")
        self.model, self._keep = model, frozenset(keep)
        self.cache: Any = None
        self._accepts = inspect.signature(model.forward).parameters
        longest = max(map(len, sequences))
        pads = torch.tensor([longest - len(sequence) for sequence in sequences], device=model.device)
        ids = torch.tensor([[0] * (longest - len(s)) + list(s) for s in sequences], device=model.device)
        places = torch.arange(longest, device=model.device) - pads[:, None]
        self.seen = Seen(model, ids, (places >= 0).long())
        self.position = places[:, -1:]
        self.logits = self._run(ids, places.clamp(min=0))

    def read(self, tokens: torch.Tensor) -> torch.Tensor:
        """Read one more token a row, [b] int64, and return the new ``logits``."""
        self.position = self.position + 1
        self.seen.tokens = torch.cat([self.seen.tokens, tokens[:, None]], dim=1)
        self.seen.mask = torch.cat([self.seen.mask, self.seen.mask.new_ones(len(tokens), 1)], dim=1)
        self.logits = self._run(tokens[:, None], self.position)
        return self.logits

    def reorder(self, index: torch.Tensor) -> None:
        """Let row i become a copy of the row ``index[i]``; there may be more rows or fewer than before.

        Raises ValueError if the model's cache cannot be reordered.
        """
        if not hasattr(self.cache, "reorder_cache"):
            raise ValueError(
                f"{type(self.model).__name__}: its cache ({type(self.cache).__name__}) cannot be "
                "reordered; use a decoder without beams or look-ahead."
            )
        self.cache.reorder_cache(index)
        seen = self.seen
        seen.tokens, seen.mask, self.position = seen.tokens[index], seen.mask[index], self.position[index]
        self.logits = self.logits[index]
        seen.hidden = None if seen.hidden is None else seen.hidden[index]
        seen.blocks = [block[index] for block in seen.blocks]

    def _run(self, ids: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        recurrent = "cache_params" in self._accepts
        # A recurrent model's mask is for the tokens that are read now; what was read before is in its state.
        options: dict[str, Any] = {
            "attention_mask": None if recurrent and self.cache is not None else self.seen.mask,
            "cache_params" if recurrent else "past_key_values": self.cache,
        }
        if "position_ids" in self._accepts:
            options["position_ids"] = positions
        if "logits_to_keep" in self._accepts and HIDDEN not in self._keep:
            options["logits_to_keep"] = 1
        with self._kept():
            output = self.model(input_ids=ids, use_cache=True, **options)
        self.cache = output.cache_params if recurrent else output.past_key_values
        return numbers(output.logits[:, -1])

    @contextlib.contextmanager
    def _kept(self) -> Iterator[None]:
        """Put into ``seen`` what was asked for while the model runs."""
        with contextlib.ExitStack() as stack:
            if HIDDEN in self._keep:
                head = self.model.get_output_embeddings()
                stack.callback(head.register_forward_pre_hook(self._keep_hidden).remove)
            if BLOCKS in self._keep:
                self.seen.blocks = []
                layers = blocks(self.model)[1]
                stack.enter_context(watched(layers, lambda _, hidden: self.seen.blocks.append(hidden[:, -1].clone())))
            yield

    def _keep_hidden(self, _module: object, args: tuple[torch.Tensor, ...]) -> None:
        new, old = args[0].float(), self.seen.hidden
        self.seen.hidden = new if old is None else torch.cat([old, new], dim=1)


def numbers(logits: torch.Tensor) -> torch.Tensor:
    """Return float32 logits [.., V] that every decoder can work with, whatever a broken model gives.

    nan counts as "never"; infinity as the largest number; a row without any number gives token 0.
    """
    logits = logits.float()
    if bool(torch.isfinite(logits).all()):
        return logits
    largest = torch.finfo(logits.dtype).max / 4
    logits = torch.nan_to_num(logits, nan=-float("inf"), posinf=largest, neginf=-float("inf")).clamp(max=largest)
    empty = logits.amax(-1) == -float("inf")
    logits[..., 0] = torch.where(empty, 0.0, logits[..., 0])
    return logits


def end_tokens(model: PreTrainedModel) -> list[int]:
    """Return the ids that end a text: the generation config's, else the config's; empty if there are none."""
    config = getattr(model, "generation_config", None)
    ids = getattr(config, "eos_token_id", None)
    if ids is None:
        ids = getattr(model.config.get_text_config(), "eos_token_id", None)
    return [] if ids is None else [int(i) for i in (ids if isinstance(ids, list | tuple) else [ids])]
