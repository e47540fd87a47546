"""Teacher forcing: what decoders would choose along the reference's greedy text, and how likely texts are.

Free-running texts mix two things: how often a choice differs, and what follows once it has. Along one given text, the
reference's greedy one, only the first is left. Reference and variant read it in one forward pass each; every decoder
with ``scores`` then says, place by place, what it would choose and from which distribution, with the noise that it has
in free running. Decoders with a loop of their own have no such distribution and are left out. The same two contrasts as
of free texts are taken: reference and variant with one decoder, and on the variant's weights the decoder with greedy
search. The variant's own texts are read by the reference as well: their mean negative log-likelihood tells garble from
drift.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from hemorrhage import files, plugins
from hemorrhage.architecture.targets import blocks
from hemorrhage.corpus.prompts import Prompt
from hemorrhage.decoding import generation, noise, trajectories
from hemorrhage.decoding.reader import Seen, numbers
from hemorrhage.measuring.residuals import watched

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Texts = list[tuple[Prompt, list[int]]]
MEASURES = (
    "count",
    "weight_effect.agreement",
    "weight_effect.total_variation",
    "weight_effect.kl",
    "weight_effect.kl_count",
    "decoder_effect.agreement",
    "decoder_effect.kl",
)


def given_texts(path: str | PathLike) -> Texts:
    """Return (prompt, greedy tokens) of every prompt in a file of the reference's greedy continuations."""
    lines = [next(iter(found.values())) for found in trajectories.read(path).values()]
    return [
        (Prompt(line["prompt"], tuple(line["prompt_tokens"]), line["prompt_text"]), line["tokens"]) for line in lines
    ]


class Reading:
    """One model's forward pass over prompts with given texts: what a reader would have seen at every place."""

    def __init__(self, model: PreTrainedModel, texts: Texts) -> None:
        """Read every text, one row at a time, so that nothing is padded."""
        self.model = model
        self.logits: list[torch.Tensor] = []
        self._read: list[tuple[torch.Tensor, torch.Tensor, list[torch.Tensor], int]] = []
        for prompt, tokens in texts:
            ids = torch.tensor([*prompt.tokens, *tokens], device=model.device)
            kept: list[torch.Tensor] = []
            hidden: list[torch.Tensor] = []
            with _heard(model, hidden), watched(blocks(model)[1], _keeper(kept)), torch.inference_mode():
                logits = model(input_ids=ids[None], use_cache=False).logits[0]
            start = len(prompt.tokens)
            self.logits.append(numbers(logits[start - 1 : -1]))
            self._read.append((ids, hidden[0][0].float(), kept, start))

    def seen(self, row: int) -> Seen:
        """Return what is seen before each new token of a text, the places as the rows of a batch."""
        ids, hidden, kept, start = self._read[row]
        longest = len(ids) - 1
        places = (
            torch.arange(longest, device=ids.device)[None]
            - torch.arange(longest - start, -1, -1, device=ids.device)[:, None]
        )
        inside = places.clamp(min=0)
        mask = (places >= 0).long()
        return Seen(self.model, ids[inside] * mask, mask, hidden[inside], [block[start - 1 : -1] for block in kept])


def _keeper(kept: list[torch.Tensor]) -> Callable[[int, torch.Tensor], None]:
    """A watcher of blocks that copies the output [1, L, d] of each."""
    return lambda _, out: kept.append(out[0].clone())


@contextlib.contextmanager
def _heard(model: PreTrainedModel, kept: list[torch.Tensor]) -> Iterator[None]:
    """Keep the input of the output embedding while the model runs."""

    def keep(_module: object, args: tuple[torch.Tensor, ...]) -> None:
        kept.append(args[0])

    hook = model.get_output_embeddings().register_forward_pre_hook(keep)
    try:
        yield
    finally:
        hook.remove()


def compare(
    reference: PreTrainedModel,
    variant: PreTrainedModel,
    texts: Texts,
    decoder: Mapping[str, Any],
    seeds: Sequence[int],
    others: Mapping[str, PreTrainedModel] | None = None,
    read: tuple[Reading, Reading] | None = None,
) -> dict[str, np.ndarray] | None:
    """Return sums over the places of each text, [prompts] each, of one decoder; None if it has no ``scores``.

    ``count`` is the number of places. Of ``weight_effect`` there are ``agreement`` (equal choices under the same
    noise), ``total_variation``, ``kl`` (in nats, reference to variant, over the places where it is finite) and
    ``kl_count`` (those places); of ``decoder_effect``, on the variant's weights, ``agreement`` (choices that are greedy
    search's) and ``kl`` (in nats, from what the decoder chooses from to the model's own distribution: a decoder only
    removes tokens, so it is finite, and the surprise of its choice if that is certain).

    Args:
        reference: the unchanged model.
        variant: the changed one.
        texts: from ``given_texts``.
        decoder: name and settings.
        seeds: of stochastic decoders.
        others: the other variants that the decoder names, by slug.
        read: the readings of both models, where several decoders are compared.
    """
    plugin = plugins.get("decoders", decoder["name"])
    if not hasattr(plugin.module, "scores"):
        return None
    settings = plugin.settings(decoder["settings"])
    readings = [*(read or (Reading(reference, texts), Reading(variant, texts)))]
    other = generation.other_of(plugin.module, settings, others or {})
    weak = None if other is None else Reading(other, texts)
    chosen_seeds: Sequence[int | None] = list(seeds) if plugin.module.STOCHASTIC else [None]
    sums = {name: np.zeros(len(texts)) for name in MEASURES}
    for row, text in enumerate(texts):
        walks = [_walk(reading, weak, row, text, plugin.module, settings) for reading in readings]
        for step, (a, b, own) in enumerate(zip(*walks, readings[1].logits[row], strict=True)):
            first, second = (_choices(scores, text[0], step, chosen_seeds) for scores in (a, b))
            found = {
                "count": 1.0,
                **_apart(a, b, first, second, plugin.module.STOCHASTIC),
                **_from_greedy(b, own, second, plugin.module.STOCHASTIC),
            }
            for name, value in found.items():
                sums[name][row] += value
    return sums


def found_by(reference: PreTrainedModel, path: str | PathLike) -> tuple[np.ndarray, np.ndarray]:
    """Return how the reference finds texts, and what it has read at their ends.

    Mean negative log-likelihood in nats per token, [prompts, seeds], and the input of the output embedding at the last
    token, [prompts, seeds, d] float32; nan for an empty text.
    """
    texts = [
        [_read(reference, line["prompt_tokens"], line["tokens"]) for line in lines.values()]
        for lines in trajectories.read(path).values()
    ]
    return (
        np.array([[nll for nll, _ in row] for row in texts]),
        np.array([[features for _, features in row] for row in texts], dtype=np.float32),
    )


def measure(
    reference: PreTrainedModel,
    variant: PreTrainedModel,
    greedy: str | PathLike,
    decoders: Mapping[str, Mapping[str, Any]],
    paths: Mapping[str, str],
    seeds: Sequence[int],
    others: Mapping[str, PreTrainedModel],
    out: str | PathLike,
) -> None:
    """Write an archive with ``{measure}.{decoder}`` of every decoder, see ``compare``.

    Beside them stand ``nll.{decoder}`` and ``features.{decoder}``, see ``found_by``.

    Args:
        reference: the unchanged model.
        variant: the changed one.
        greedy: the reference's greedy continuations.
        decoders: name and settings by slug.
        paths: the variant's continuations by slug of the decoder.
        seeds: of stochastic decoders.
        others: the other variants that decoders name, by slug.
        out: the archive (.npz).
    """
    texts = given_texts(greedy)
    read = Reading(reference, texts), Reading(variant, texts)
    arrays: dict[str, np.ndarray] = {}
    for slug, decoder in decoders.items():
        arrays[f"nll.{slug}"], arrays[f"features.{slug}"] = found_by(reference, paths[slug])
        sums = compare(reference, variant, texts, decoder, seeds, others, read)
        arrays |= {f"{name}.{slug}": values for name, values in (sums or {}).items()}
    files.write_arrays(out, **arrays)


@torch.inference_mode()
def _walk(
    reading: Reading, weak: Reading | None, row: int, text: tuple[Prompt, list[int]], module: Any, settings: object
) -> torch.Tensor:
    """The decoder's scores [places, V] along a text."""
    prompt, tokens = text
    given = torch.tensor([tokens], device=reading.model.device)
    logits, seen = reading.logits[row], reading.seen(row)
    seen.other = weak.logits[row] if weak else None
    if not getattr(module, "SEQUENTIAL", False):  # every place is a row, with what came before it as its prompt
        prompts = [Prompt(prompt.id, (*prompt.tokens, *tokens[:place]), "") for place in range(len(tokens))]
        rows = generation.Rows(prompts, [None] * len(tokens), given[0, :0].expand(len(tokens), 0), seen=seen)
        return module.scores(logits, rows, settings)
    rows = generation.Rows([prompt], [None], given[:, :0])
    found = []
    for place in range(len(tokens)):
        rows.tokens = given[:, :place]
        found.append(module.scores(logits[place : place + 1], rows, settings)[0])
    return torch.stack(found)


@functools.lru_cache(maxsize=1024)
def _noise(prompt: int, seed: int, place: int, vocabulary: int) -> torch.Tensor:
    return torch.from_numpy(noise.gumbel([(seed, prompt)], place, vocabulary)[0])


def _apart(
    a: torch.Tensor, b: torch.Tensor, first: Sequence[int], second: Sequence[int], stochastic: bool
) -> dict[str, float]:
    """What separates two rows of scores [V] at one place, and the choices made from them with the same seeds."""
    same = sum(one == other for one, other in zip(first, second, strict=True)) / len(first)
    if not stochastic:  # a deterministic decoder puts everything on its one choice
        return {"weight_effect.agreement": same, "weight_effect.total_variation": 1 - same}
    p, q = a.double().softmax(-1), b.double().softmax(-1)
    kl = float(torch.where(p > 0, p * (p.log() - q.log()), 0.0).sum())
    finite = bool(np.isfinite(kl))
    return {
        "weight_effect.agreement": same,
        "weight_effect.total_variation": float((p - q).abs().sum() / 2),
        "weight_effect.kl": kl if finite else 0.0,
        "weight_effect.kl_count": float(finite),
    }


def _from_greedy(
    scores: torch.Tensor, logits: torch.Tensor, chosen: Sequence[int], stochastic: bool
) -> dict[str, float]:
    """What separates a decoder's scores [V] and choices at one place from greedy search, and from the logits [V]."""
    greedy, total = int(logits.argmax()), logits.double().logsumexp(-1)
    if not stochastic:
        kl = float(total - logits[chosen[0]])
    else:
        kept = scores > -torch.inf
        logs = scores[kept].double().log_softmax(-1)
        kl = float((logs.exp() * (logs - logits[kept].double() + total)).sum())
    return {
        "decoder_effect.agreement": sum(choice == greedy for choice in chosen) / len(chosen),
        "decoder_effect.kl": kl,
    }


def _choices(scores: torch.Tensor, prompt: Prompt, step: int, seeds: Sequence[int | None]) -> list[int]:
    """The token that is taken with each seed, from scores [V] at one place."""
    if seeds == [None]:
        return [int(scores.argmax())]
    drawn = [_noise(prompt.id, seed or 0, step, len(scores)).to(scores.device) for seed in seeds]
    return [int((scores + noise).argmax()) for noise in drawn]


@torch.inference_mode()
def _read(model: PreTrainedModel, prompt: Sequence[int], tokens: Sequence[int]) -> tuple[float, np.ndarray]:
    """(mean negative log-likelihood of the tokens, what enters the output embedding at the last one)."""
    ids = torch.tensor([[*prompt, *tokens]], device=model.device)
    hidden: list[torch.Tensor] = []
    with _heard(model, hidden):
        logits = model(input_ids=ids, use_cache=False).logits[0]
    last = hidden[0][0, -1].float().cpu().numpy()
    if not tokens:
        return float("nan"), np.full_like(last, np.nan)
    logs = logits[len(prompt) - 1 : -1].float().log_softmax(-1)
    return -float(logs.gather(-1, ids[0, len(prompt) :, None]).double().mean()), last
