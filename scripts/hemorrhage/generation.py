"""Continuing prompts: one batched loop over the model with its cache, and the text files it writes.

A *decoder* is a file in ``decoders/``. It defines

- a docstring: what it does, what it costs, its paper;
- ``Settings``: a frozen dataclass whose ``__post_init__`` validates with the helpers of ``settings.py``;
- ``AXIS``: a ``settings.Axis`` whose harmless end is greedy search, or None;
- ``STOCHASTIC``: True if tokens are drawn; then the loop adds Gumbel noise to the scores (``noise.py``) and the
  config's seeds are used;
- ``EXAMPLE``: settings (a dict) for the contract test;
- and one of these two functions:

  - ``scores(logits [b, V] float32, rows, settings) -> [b, V]`` for a decoder that chooses token by token. The next
    token is ``argmax(scores)``, or ``argmax(scores + gumbel)`` if it is stochastic: softmax(scores) is then the
    distribution that the decoder draws from, and -inf is a token it never takes. It may look at ``rows`` (prompts,
    tokens so far) and keep in ``rows.state`` what it needs at the next step; it never changes ``logits`` in place.
  - ``generate(model, rows, settings, limit) -> list[list[int]]`` for a decoder that needs a loop of its own (beams,
    hidden states, a second model). It returns the new tokens of every row, at most ``limit``, up to and with the
    first of ``end_tokens(model)``; ``Reader`` runs the model for it and ``rows.gumbel`` gives it its noise.

A row is one prompt with one seed. What a row becomes must not depend on the other rows of its batch.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from os import PathLike
from typing import TYPE_CHECKING, Any

import torch

from hemorrhage import files, noise, plugins

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from hemorrhage.prompts import Prompt


@dataclass
class Rows:
    """The rows of one batch, as a decoder sees them.

    Attributes:
        prompts: the prompt of every row.
        seeds: the seed of every row; None for a decoder without noise.
        tokens: [b, step] int64, the new tokens so far; a row that has ended is filled up.
        state: what the decoder keeps from step to step.
    """

    prompts: Sequence[Prompt]
    seeds: Sequence[int | None]
    tokens: torch.Tensor
    state: dict[str, Any] = field(default_factory=dict)

    @property
    def step(self) -> int:
        """The place of the next token, from 0."""
        return self.tokens.shape[1]

    def gumbel(self, vocabulary: int) -> torch.Tensor:
        """Return the noise of the next token, [b, vocabulary] float32."""
        keys = [(seed or 0, prompt.id) for seed, prompt in zip(self.seeds, self.prompts, strict=True)]
        return torch.from_numpy(noise.gumbel(keys, self.step, vocabulary)).to(self.tokens.device)


@dataclass(frozen=True)
class Continuation:
    """What became of one row.

    Attributes:
        prompt: the prompt.
        seed: the seed, or None.
        tokens: the new tokens, the end token included.
        finished: True if the last token is an end token, False if the row was cut at the limit.
    """

    prompt: Prompt
    seed: int | None
    tokens: list[int]
    finished: bool


class Reader:
    """A model and its cache over a batch of token sequences that grows by one token a row.

    Sequences of unequal length are padded on the left, masked, and get the positions they would have alone. The
    cache is the model's own: keys and values, or the recurrent state of a state-space model.

    Attributes:
        logits: [b, V] float32 for the token after the last one read.
    """

    def __init__(self, model: PreTrainedModel, sequences: Sequence[Sequence[int]]) -> None:
        """Read the sequences. Raises ValueError if one is empty."""
        if not all(sequences):
            raise ValueError("a prompt without a token cannot be continued.")
        self.model, self.cache = model, None
        self._accepts = inspect.signature(model.forward).parameters
        longest = max(map(len, sequences))
        pads = torch.tensor([longest - len(sequence) for sequence in sequences], device=model.device)
        ids = torch.tensor([[0] * (longest - len(s)) + list(s) for s in sequences], device=model.device)
        places = torch.arange(longest, device=model.device) - pads[:, None]
        self.mask = (places >= 0).long()
        self.position = places[:, -1:]
        self.logits = self._run(ids, places.clamp(min=0))

    def read(self, tokens: torch.Tensor) -> torch.Tensor:
        """Read one more token a row, [b] int64, and return the new ``logits``."""
        self.position = self.position + 1
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(tokens), 1)], dim=1)
        self.logits = self._run(tokens[:, None], self.position)
        return self.logits

    def _run(self, ids: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        recurrent = "cache_params" in self._accepts
        # A recurrent model's mask is for the tokens that are read now; what was read before is in its state.
        options: dict[str, Any] = {"attention_mask": None if recurrent and self.cache is not None else self.mask,
                                   "cache_params" if recurrent else "past_key_values": self.cache}
        if "position_ids" in self._accepts:
            options["position_ids"] = positions
        if "logits_to_keep" in self._accepts:
            options["logits_to_keep"] = 1
        output = self.model(input_ids=ids, use_cache=True, **options)
        self.cache = output.cache_params if recurrent else output.past_key_values
        return output.logits[:, -1].float()


def end_tokens(model: PreTrainedModel) -> list[int]:
    """Return the ids that end a text: the generation config's, else the config's; empty if there are none."""
    config = getattr(model, "generation_config", None)
    ids = getattr(config, "eos_token_id", None)
    if ids is None:
        ids = getattr(model.config.get_text_config(), "eos_token_id", None)
    return [] if ids is None else [int(i) for i in (ids if isinstance(ids, list | tuple) else [ids])]


@torch.inference_mode()
def continue_prompts(model: PreTrainedModel, prompts: Sequence[Prompt], decoder: str, settings: dict[str, object],
                     seeds: Sequence[int] = (), limit: int = 48, batch: int = 8) -> list[Continuation]:
    """Continue every prompt, once with each seed if the decoder is stochastic.

    Args:
        model: a causal LM in eval mode, its attachments in place.
        prompts: the prompts, of any lengths.
        decoder: name of a file in ``decoders/``.
        settings: the decoder's settings.
        seeds: seeds of the noise; not used by a deterministic decoder.
        limit: most new tokens a row (max_new_tokens of other codes).
        batch: rows at a time; the result does not depend on it beyond the rounding of the model.

    Returns:
        The continuations by prompt, then seed.

    Raises:
        ValueError: for a stochastic decoder without seeds, or a text longer than the model's positions.
    """
    plugin = plugins.get("decoders", decoder)
    module, chosen = plugin.module, plugin.settings(settings)
    if module.STOCHASTIC and not seeds:
        raise ValueError(f"decoding.seeds: the decoder '{decoder}' draws tokens and needs at least one seed.")
    _check_length(model, prompts, limit)
    pairs = [(prompt, seed) for prompt in prompts for seed in (seeds if module.STOCHASTIC else [None])]
    results: list[Continuation] = []
    for start in range(0, len(pairs), batch):
        part = pairs[start:start + batch]
        rows = Rows([prompt for prompt, _ in part], [seed for _, seed in part],
                    torch.empty(len(part), 0, dtype=torch.long, device=model.device))
        own = getattr(module, "generate", None)
        made = own(model, rows, chosen, limit) if own else _loop(model, rows, module, chosen, limit)
        ends = set(end_tokens(model))
        results += [Continuation(prompt, seed, tokens, bool(tokens) and tokens[-1] in ends)
                    for (prompt, seed), tokens in zip(part, made, strict=True)]
    return results


def write_text(path: str | PathLike, continuations: Iterable[Continuation], tokenizer: Any, limit: int) -> None:
    """Write one JSON line per continuation, in their order; equal texts give equal bytes.

    A line holds ``prompt`` (id), ``prompt_hash``, ``prompt_text``, ``seed``, ``tokens`` (ids), ``text`` (without
    special tokens), ``finished`` and ``limit``.
    """
    lines = []
    for made in continuations:
        text = tokenizer.decode(made.tokens, skip_special_tokens=True)
        line = {"prompt": made.prompt.id, "prompt_hash": made.prompt.hash, "prompt_text": made.prompt.text,
                "seed": made.seed, "tokens": made.tokens, "text": text, "finished": made.finished, "limit": limit}
        lines.append(json.dumps(line, sort_keys=True, ensure_ascii=False) + "\n")
    files.write_text(path, "".join(lines))


def _loop(model: PreTrainedModel, rows: Rows, module: Any, settings: object, limit: int) -> list[list[int]]:
    """Choose token by token with ``module.scores`` until every row has ended or is ``limit`` tokens long."""
    ends = torch.tensor(end_tokens(model), dtype=torch.long, device=model.device)
    reader = Reader(model, [prompt.tokens for prompt in rows.prompts])
    done = torch.zeros(len(rows.prompts), dtype=torch.bool, device=model.device)
    while True:
        # A model that is broken beyond numbers still gives a text, the same each time: token 0 if all are nan.
        logits = torch.where(reader.logits.isnan(), -float("inf"), reader.logits)
        scores = module.scores(logits, rows, settings)
        if module.STOCHASTIC:
            scores = scores + rows.gumbel(scores.shape[-1])
        tokens = scores.argmax(-1).masked_fill(done, 0)
        lengths = rows.step + 1
        rows.tokens = torch.cat([rows.tokens, tokens[:, None]], dim=1)
        done = done | torch.isin(tokens, ends)
        if lengths == limit or bool(done.all()):
            return [_cut(row, set(ends.tolist())) for row in rows.tokens.tolist()]
        reader.read(tokens)


def _cut(tokens: list[int], ends: set[int]) -> list[int]:
    """The tokens up to and with the first end token."""
    return next((tokens[:i + 1] for i, token in enumerate(tokens) if token in ends), tokens)


def _check_length(model: PreTrainedModel, prompts: Sequence[Prompt], limit: int) -> None:
    places = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    longest = max((len(prompt.tokens) for prompt in prompts), default=0)
    if places is not None and longest + limit > places:
        raise ValueError(f"decoding.new_tokens: a prompt of {longest} tokens and {limit} new ones do not fit into "
                         f"the {places} positions of the model; lower one of them.")
