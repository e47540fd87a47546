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
    tokens so far, ``rows.seen``) and keep in ``rows.state`` what it needs at the next step; it never changes
    ``logits`` in place.
  - ``generate(model, rows, settings, limit) -> list[list[int]]`` for a decoder that needs a loop of its own (beams,
    look-ahead, two draws a token). It returns the new tokens of every row, at most ``limit``, up to and with the
    first of ``end_tokens(model)``; ``Reader`` runs the model for it, ``grow`` is the loop over tokens, and
    ``rows.draw`` and ``rows.gumbel`` give it its noise.

It may define

- ``KEEPS``: a frozenset of ``"hidden"`` and ``"blocks"``, what ``rows.seen`` holds for ``scores`` beside the tokens;
- ``OTHER``: the name of the setting that holds the slug of another variant. The config must have this variant;
  ``rows.seen.other`` holds its logits for ``scores``, and ``rows.others[slug]`` is the model;
- ``SEQUENTIAL = True`` if ``scores`` keeps something in ``rows.state`` from token to token.

A row is one prompt with one seed. What a row becomes must not depend on the other rows of its batch.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from typing import TYPE_CHECKING, Any

import torch

from hemorrhage import files, plugins
from hemorrhage.decoding import noise
from hemorrhage.decoding.reader import Reader, Seen, end_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from hemorrhage.corpus.prompts import Prompt


@dataclass
class Rows:
    """The rows of one batch, as a decoder sees them.

    Attributes:
        prompts: the prompt of every row.
        seeds: the seed of every row; None for a decoder without noise.
        tokens: [b, step] int64, the new tokens so far; a row that has ended is filled up.
        state: what the decoder keeps from step to step.
        others: the other variants that the decoder names, by slug.
        seen: what the model has read; set by the loop.
        ended: whether a row's new tokens end it beside the end tokens, if the caller says so.
    """

    prompts: Sequence[Prompt]
    seeds: Sequence[int | None]
    tokens: torch.Tensor
    state: dict[str, Any] = field(default_factory=dict)
    others: Mapping[str, PreTrainedModel] = field(default_factory=dict)
    seen: Seen | None = None
    ended: Callable[[list[int]], bool] | None = None

    @property
    def step(self) -> int:
        """The place of the next token, from 0."""
        return self.tokens.shape[1]

    @property
    def sequences(self) -> list[tuple[int, ...]]:
        """The tokens of the prompts."""
        return [prompt.tokens for prompt in self.prompts]

    def gumbel(self, vocabulary: int, stream: int = 0) -> torch.Tensor:
        """Return the noise of the next token, [b, vocabulary] float32; a second draw takes another ``stream``."""
        return torch.from_numpy(noise.gumbel(self._keys, self.step, vocabulary, stream)).to(self.tokens.device)

    def draw(self, scores: torch.Tensor, stream: int = 0) -> torch.Tensor:
        """Return ``argmax(scores + gumbel)``, [b], for scores [b, V] float32; the same at a fraction of the cost."""
        drawn = noise.draw(scores.detach().cpu().numpy(), self._keys, self.step, stream)
        return torch.from_numpy(drawn).to(self.tokens.device)

    def ending(self) -> torch.Tensor:
        """Return the rows that ``ended`` ends here, [b] bool."""
        found = [self.ended is not None and self.ended(row) for row in self.tokens.tolist()]
        return torch.tensor(found, dtype=torch.bool, device=self.tokens.device)

    @property
    def _keys(self) -> list[tuple[int, int]]:
        return [(seed or 0, prompt.id) for seed, prompt in zip(self.seeds, self.prompts, strict=True)]


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


@torch.inference_mode()
def continue_prompts(
    model: PreTrainedModel,
    prompts: Sequence[Prompt],
    decoder: str,
    settings: dict[str, object],
    seeds: Sequence[int] = (),
    limit: int = 48,
    batch: int = 8,
    others: Mapping[str, PreTrainedModel] | None = None,
    ended: Callable[[list[int]], bool] | None = None,
) -> list[Continuation]:
    """Continue every prompt, once with each seed if the decoder is stochastic.

    Args:
        model: a causal LM in eval mode, its attachments in place.
        prompts: the prompts, of any lengths.
        decoder: name of a file in ``decoders/``.
        settings: the decoder's settings.
        seeds: seeds of the noise; not used by a deterministic decoder.
        limit: most new tokens a row (max_new_tokens of other codes).
        batch: rows at a time; the result does not depend on it beyond the rounding of the model.
        others: the other variants that the decoder names, by slug.
        ended: whether new tokens end a row beside the end tokens; what beams search is cut afterwards by the caller.

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
        part = pairs[start : start + batch]
        rows = Rows(
            [prompt for prompt, _ in part],
            [seed for _, seed in part],
            torch.empty(len(part), 0, dtype=torch.long, device=model.device),
            others=others or {},
            ended=ended,
        )
        own = getattr(module, "generate", None)
        made = own(model, rows, chosen, limit) if own else _loop(model, rows, module, chosen, limit)
        ends = set(end_tokens(model))
        results += [
            Continuation(prompt, seed, tokens, bool(tokens) and tokens[-1] in ends)
            for (prompt, seed), tokens in zip(part, made, strict=True)
        ]
    return results


def write_text(path: str | PathLike, continuations: Iterable[Continuation], tokenizer: Any, limit: int) -> None:
    """Write one JSON line per continuation, in their order; equal texts give equal bytes.

    A line holds ``prompt`` (id), ``prompt_hash``, ``prompt_text``, ``prompt_tokens``, ``seed``, ``tokens`` (ids),
    ``text`` (without special tokens), ``ends`` (how many characters of it the first 1, 2, … tokens make),
    ``finished`` and ``limit``.
    """
    lines = []
    for made in continuations:
        text = tokenizer.decode(made.tokens, skip_special_tokens=True)
        line = {
            "prompt": made.prompt.id,
            "prompt_hash": made.prompt.hash,
            "prompt_text": made.prompt.text,
            "prompt_tokens": made.prompt.tokens,
            "seed": made.seed,
            "tokens": made.tokens,
            "text": text,
            "ends": [
                len(tokenizer.decode(made.tokens[: place + 1], skip_special_tokens=True))
                for place in range(len(made.tokens))
            ],
            "finished": made.finished,
            "limit": limit,
        }
        lines.append(json.dumps(line, sort_keys=True, ensure_ascii=False) + "\n")
    files.write_text(path, "".join(lines))


def grow(
    model: PreTrainedModel, rows: Rows, readers: Sequence[Reader], choose: Callable[[], torch.Tensor], limit: int
) -> list[list[int]]:
    """Append ``choose()`` [b] to every row and let the readers read it, until all rows have ended or are at ``limit``.

    Returns the new tokens of every row, cut after the first end token or where ``rows.ended`` says that it has ended.
    """
    ids = end_tokens(model)
    ends = torch.tensor(ids, dtype=torch.long, device=rows.tokens.device)
    done = torch.zeros(len(rows.prompts), dtype=torch.bool, device=rows.tokens.device)
    lengths = torch.full_like(done, limit, dtype=torch.long)
    while True:
        tokens = choose().masked_fill(done, 0)
        rows.tokens = torch.cat([rows.tokens, tokens[:, None]], dim=1)
        ending = (torch.isin(tokens, ends) | rows.ending()) & ~done
        lengths, done = lengths.masked_fill(ending, rows.step), done | ending
        if rows.step == limit or bool(done.all()):
            return [row[:length] for row, length in zip(rows.tokens.tolist(), lengths.tolist(), strict=True)]
        for reader in readers:
            reader.read(tokens)


def cut(tokens: list[int], ends: set[int]) -> list[int]:
    """Return the tokens up to and with the first end token."""
    return next((tokens[: i + 1] for i, token in enumerate(tokens) if token in ends), tokens)


def other_of(module: Any, settings: object, others: Mapping[str, PreTrainedModel]) -> PreTrainedModel | None:
    """Return the other variant that a decoder names, None if it names none.

    Raises ValueError if it is not given.
    """
    name = getattr(module, "OTHER", None)
    return None if name is None else named(others, name, getattr(settings, name))


def named(others: Mapping[str, PreTrainedModel], name: str, slug: str) -> PreTrainedModel:
    """Return the other variant that the setting ``name`` of a decoder names. Raises ValueError if it is not given."""
    if slug not in others:
        raise ValueError(f"{name}: the variant '{slug}' is not there; name a variant of the config.")
    return others[slug]


def _loop(model: PreTrainedModel, rows: Rows, module: Any, settings: object, limit: int) -> list[list[int]]:
    """Choose token by token with ``module.scores``."""
    other = other_of(module, settings, rows.others)
    readers = [Reader(model, rows.sequences, getattr(module, "KEEPS", ()))]
    readers += [Reader(other, rows.sequences)] if other is not None else []

    def choose() -> torch.Tensor:
        rows.seen = readers[0].seen
        rows.seen.other = readers[1].logits if other is not None else None
        scores = module.scores(readers[0].logits, rows, settings)
        return rows.draw(scores) if module.STOCHASTIC else scores.argmax(-1)

    return grow(model, rows, readers, choose, limit)


def _check_length(model: PreTrainedModel, prompts: Sequence[Prompt], limit: int) -> None:
    places = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    longest = max((len(prompt.tokens) for prompt in prompts), default=0)
    if places is not None and longest + limit > places:
        raise ValueError(
            f"decoding.new_tokens: a prompt of {longest} tokens and {limit} new ones do not fit into "
            f"the {places} positions of the model; lower one of them."
        )
