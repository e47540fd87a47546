"""The probe ``tasks``: build the tasks, ask them, compare with the reference."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import metadata
from types import ModuleType
from typing import TYPE_CHECKING, Any

from hemorrhage.corpus import unseen
from hemorrhage.records import Measurement
from hemorrhage.tasks import agreement, continuation, last_word, scoring
from hemorrhage.tasks.answers import Answers
from hemorrhage.tasks.harness import Harness, dataset, loaded

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from hemorrhage.corpus.texts import Article
    from hemorrhage.probing import Context

BUILT_IN: dict[str, ModuleType] = {module.NAME: module for module in (last_word, continuation, agreement)}
FROM_TEXT = (last_word.NAME, continuation.NAME)


def measure(
    model: PreTrainedModel, context: Context, names: Sequence[str], items: int, batch: int, seed: int
) -> Measurement:
    """Return metrics per task and over all, and the answers; see the probe for what ``names`` may hold."""
    answers = ask(model, context, names, items, batch, seed)
    references = answers
    if context.baseline is not None:
        references = {task: Answers.read(context.baseline, task) for task in answers}
    metrics = [
        metric
        for task, found in answers.items()
        for metric in scoring.metrics(task, found, references[task], context.model)
    ]
    arrays = {key: array for task, found in answers.items() for key, array in found.arrays(task).items()}
    return Measurement(
        [*metrics, *scoring.pooled(answers, references, context.model)],
        arrays=arrays,
        protocol=protocol(items, batch, seed),
    )


def ask(
    model: PreTrainedModel, context: Context, names: Sequence[str], items: int, batch: int, seed: int
) -> dict[str, Answers]:
    """Return the model's answers by task."""
    wanted = [name for name in names if name in BUILT_IN]
    tokenizer = context.tokenizer
    articles = _articles(context, tokenizer) if set(wanted) & set(FROM_TEXT) else []
    definitions = {name: _definition(BUILT_IN[name], articles, items, seed) for name in wanted}
    harness = Harness(model, tokenizer, batch, seed)
    with loaded(names, definitions) as tasks:
        return {task: harness.ask(task, members, items) for task, members in tasks.items()}


def protocol(items: int, batch: int, seed: int) -> dict[str, Any]:
    """Return how the tasks were asked, for the record."""
    return {
        "slug": f"lm-eval_items~{items}_batch~{batch}_seed~{seed}",
        "items": items,
        "batch": batch,
        "seed": seed,
        "lm_eval": metadata.version("lm_eval"),
    }


def _articles(context: Context, tokenizer: Any) -> list[Article]:
    if context.text is None:
        raise ValueError(f"tasks: {' and '.join(FROM_TEXT)} are built from a text; give the context one.")
    return unseen.articles(context.text, context.seen, tokenizer)


def _definition(module: ModuleType, articles: Sequence[Any], items: int, seed: int) -> dict[str, Any]:
    return module.definition(dataset(module.build(articles, items, seed)))
