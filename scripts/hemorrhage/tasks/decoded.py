"""Tasks that are answered by generating: every request of lm-eval is continued by one of the study's decoders.

lm-eval gives the prompts, the filters and the exact match; what generates is ``decoding.generation``, with the noise of
a place keyed by seed, item and step, so that the answers of variants and of decoders are paired.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from hemorrhage import plugins
from hemorrhage.corpus.prompts import Prompt
from hemorrhage.decoding import generation
from hemorrhage.tasks import code, sandbox
from hemorrhage.tasks.harness import drawn

if TYPE_CHECKING:
    from transformers import PreTrainedModel

KIND = "generate_until"
LONGEST = 256  # new tokens where a task names no limit, as in lm-eval


@dataclass(frozen=True)
class Asking:
    """How tasks are asked.

    Attributes:
        items: of each task, drawn by ``seed``.
        seed: of the choice of items and of worked examples.
        seeds: of stochastic decoders.
        few_shot: worked examples before a question; None for as many as the task says.
        new_tokens: most tokens of an answer; None for as many as the task says.
        run_code: whether programs may be run, in the sandbox.
        batch: rows in one forward pass.
    """

    items: int
    seed: int
    seeds: Sequence[int]
    few_shot: int | None = None
    new_tokens: int | None = None
    run_code: bool = False
    batch: int = 8


@dataclass(frozen=True)
class Scores:
    """Scores of N items.

    Attributes:
        ids: [N] int64, place of the item in its data set.
        digests: [N] uint64 of the prompt: two answers are compared only if these are equal.
        score: [N, seeds] float64, 0 to 1; one column for a deterministic decoder.
    """

    ids: np.ndarray
    digests: np.ndarray
    score: np.ndarray

    def arrays(self, task: str) -> dict[str, np.ndarray]:
        """Return the arrays by the names under which a record keeps them."""
        return {f"{task}.{name}": array for name, array in vars(self).items()}

    @classmethod
    def read(cls, arrays: Mapping[str, np.ndarray], task: str) -> Scores:
        """Read what ``arrays`` gave. Raises ValueError if the task is not there."""
        if f"{task}.score" not in arrays:
            raise ValueError(
                f"decoding.tasks: the reference's record has no answers to {task}; delete it and run again."
            )
        return cls(*(arrays[f"{task}.{name}"] for name in ("ids", "digests", "score")))


def ask(
    model: PreTrainedModel,
    tokenizer: Any,
    label: str,
    tasks: Sequence[Any],
    decoder: Mapping[str, Any],
    asking: Asking,
    others: Mapping[str, PreTrainedModel],
) -> Scores:
    """Return the scores of ``items`` items that the seed draws from all of ``tasks`` together.

    Raises ValueError for a task that is not answered by generating, or by programs that must not or cannot be run.
    """
    for task in tasks:
        require(label, task, asking)
    samples = drawn(label, asking.seed, tasks, asking.items)
    chosen = [task for task in tasks if samples[task.task_name]]
    requests = [request for task in chosen for request in _requests(task, samples[task.task_name], asking)]
    speaker = speaker_of(model, tokenizer, decoder, asking, others)
    columns = []
    for seed in speaker.seeds:
        speaker.seed = seed
        columns.append([score for task in chosen for score in _scored(task, speaker)])
    ids = np.array([request.doc_id for request in requests], dtype=np.int64)
    digests = np.array([_digest(request.args[0]) for request in requests], dtype=np.uint64)
    return Scores(ids, digests, np.array(columns, dtype=np.float64).T)


def require(label: str, task: Any, asking: Asking) -> None:
    """Raise ValueError if a task cannot be asked."""
    if task.OUTPUT_TYPE != KIND:
        raise ValueError(
            f"decoding.tasks: {label} has the output type {task.OUTPUT_TYPE}; a decoder answers {KIND} only, the probe "
            "`tasks` the others."
        )
    if code.is_code(task):
        if not asking.run_code:
            raise ValueError(
                f"decoding.tasks: {label} is answered by programs that the model writes; set `run_code: true` to run "
                "them in a sandbox."
            )
        sandbox.require()


def speaker_of(
    model: PreTrainedModel,
    tokenizer: Any,
    decoder: Mapping[str, Any],
    asking: Asking,
    others: Mapping[str, PreTrainedModel],
) -> Any:
    """Return lm-eval's view of a model with a decoder, an LM that only generates.

    Its ``seeds`` are those of the decoder ([None] if it draws nothing), ``seed`` is the one that it generates with.
    """
    from lm_eval.api.model import LM

    class Speaker(LM):
        def __init__(self) -> None:
            super().__init__()
            stochastic = plugins.get("decoders", decoder["name"]).module.STOCHASTIC
            self.seeds: list[int | None] = list(asking.seeds) if stochastic else [None]
            self.seed = self.seeds[0]

        def generate_until(self, requests: Sequence[Any], **_: Any) -> list[str]:
            found: dict[int, str] = {}
            for (until, limit), places in _alike(requests, asking.new_tokens):
                prompts = [_prompt(model, tokenizer, requests[place], limit) for place in places]
                made = generation.continue_prompts(
                    model,
                    prompts,
                    decoder["name"],
                    dict(decoder["settings"]),
                    seeds=[] if self.seed is None else [self.seed],
                    limit=limit,
                    batch=asking.batch,
                    others=others,
                    ended=partial(_says, tokenizer, until),
                )
                texts = [cut(_text(tokenizer, entry.tokens), until) for entry in made]
                found |= dict(zip(places, texts, strict=True))
            return [found[place] for place in range(len(requests))]

        def loglikelihood(self, requests: Any) -> Any:
            raise NotImplementedError("a decoder has no log-probabilities; the probe `tasks` compares them.")

        loglikelihood_rolling = loglikelihood

    return Speaker()


def cut(text: str, until: Sequence[str]) -> str:
    """Return the text before the first of the words that end an answer."""
    for term in until:
        text = text.split(term, 1)[0]
    return text


def _alike(requests: Sequence[Any], most: int | None) -> Iterator[tuple[tuple[tuple[str, ...], int], list[int]]]:
    """Places of the requests that end alike, the longest prompts first."""
    groups: dict[tuple[tuple[str, ...], int], list[int]] = {}
    for place in sorted(range(len(requests)), key=lambda place: (-len(requests[place].args[0]), place)):
        options = requests[place].args[1]
        until = options.get("until") or []
        words = tuple(word for word in ([until] if isinstance(until, str) else until) if word)
        own = next((options[key] for key in ("max_gen_toks", "max_new_tokens") if options.get(key)), LONGEST)
        groups.setdefault((words, min(int(own), most or int(own))), []).append(place)
    yield from groups.items()


def _prompt(model: PreTrainedModel, tokenizer: Any, request: Any, limit: int) -> Prompt:
    """The prompt of a request; like lm-eval's, one that is too long for the model loses its beginning."""
    text = request.args[0]
    ids = list(tokenizer(text)["input_ids"])
    places = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return Prompt(int(request.doc_id), tuple(ids if places is None else ids[-max(places - limit, 1) :]), text)


def _text(tokenizer: Any, tokens: Sequence[int]) -> str:
    return str(tokenizer.decode(list(tokens), skip_special_tokens=True))


def _says(tokenizer: Any, terms: Sequence[str], tokens: Sequence[int]) -> bool:
    """Whether the text of some tokens holds one of the terms."""
    text = _text(tokenizer, tokens)
    return any(term in text for term in terms)


def _requests(task: Any, places: list[int], asking: Asking) -> list[Any]:
    """Build the prompts of a task; lm-eval keeps them inside of it."""
    if asking.few_shot is not None:
        task.set_config(key="num_fewshot", value=asking.few_shot)
    task.set_fewshot_seed(seed=asking.seed)
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    task.build_all_requests(samples=places, rank=0, world_size=1)
    return list(task.instances)


def _scored(task: Any, speaker: Any) -> list[float]:
    """The score of every item of a task, by its first way of reading a response and its first metric."""
    requests = list(task.instances)
    for request, text in zip(requests, speaker.generate_until(requests), strict=True):
        request.resps, request.filtered_resps = [text], {}
    if code.is_code(task):
        programs = [code.program(request.doc, request.resps[0]) for request in requests]
        return [float(_passes(program)) for program in programs]
    task.apply_filters()
    return [_score(task, request) for request in requests]


def _passes(program: str) -> bool:
    """Whether a program passes its tests. Raises OSError if it was not run, which says nothing about the program."""
    found = sandbox.run(program)
    if found == sandbox.REFUSED:
        raise OSError(
            "decoding.tasks.run_code: a program could not be run, since its sandbox could not be made any more "
            "(too many processes or namespaces, or no memory); run the study again."
        )
    return found == sandbox.PASSED


def _score(task: Any, request: Any) -> float:
    first = next(iter(request.filtered_resps.values()))
    found = task.process_results(request.doc, [first])
    value = next(iter(found.values()), None)
    if not isinstance(value, bool | int | float | np.number) or not 0 <= value <= 1:
        raise ValueError(f"decoding.tasks: the first metric of {task.task_name} is no score from 0 to 1 of each item.")
    return float(value)


def _digest(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")
