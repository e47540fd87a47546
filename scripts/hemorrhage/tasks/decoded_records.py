"""The task scores of one variant by decoder: build the tasks, let every decoder answer them, write a record each."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from importlib import metadata
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from hemorrhage import records
from hemorrhage.corpus import unseen
from hemorrhage.planning.decoding_plan import CODE_TASKS, TEXT_TASKS
from hemorrhage.tasks import arithmetic, code, decoded, decoded_scoring, facts, sandbox
from hemorrhage.tasks.harness import dataset, loaded

if TYPE_CHECKING:
    from transformers import PreTrainedModel

VERSION = 2
GREEDY = "greedy"
BUILT: dict[str, ModuleType] = {module.NAME: module for module in (arithmetic, facts)}
Answers = dict[str, dict[str, decoded.Scores]]


def require_sandbox(tasks: Mapping[str, Any]) -> None:
    """Raise ValueError if tasks that run programs are asked where they cannot be isolated."""
    if set(tasks["names"]) & set(CODE_TASKS):
        sandbox.require()


def ask(
    model: PreTrainedModel,
    tokenizer: Any,
    decoders: Mapping[str, Mapping[str, Any]],
    tasks: Mapping[str, Any],
    seen: Sequence[str],
    others: Mapping[str, PreTrainedModel],
) -> Answers:
    """Return the scores by decoder and task.

    Args:
        model: the variant.
        tokenizer: the model's.
        decoders: name and settings by slug.
        tasks: ``decoding.tasks`` of the config, with ``text`` as source, ``seed`` and ``seeds``.
        seen: token sets whose articles no task is made of.
        others: the other variants that decoders name, by slug.
    """
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    asking = decoded.Asking(
        **{key: tasks[key] for key in ("items", "seed", "seeds", "few_shot", "new_tokens", "run_code")}
    )
    wanted = [name for name in tasks["names"] if name in BUILT]
    articles = unseen.articles(tasks["text"], seen, tokenizer) if set(wanted) & set(TEXT_TASKS) else []
    built = {name: _definition(BUILT[name], articles, asking) for name in wanted}
    if code.NAME in tasks["names"]:
        built[code.NAME] = code.definition()
    with loaded(tasks["names"], built) as found:
        return {
            slug: {
                task: decoded.ask(model, tokenizer, task, members, decoder, asking, others)
                for task, members in found.items()
            }
            for slug, decoder in decoders.items()
        }


def write(
    answers: Answers,
    references: Mapping[str, Mapping[str, np.ndarray]],
    tasks: Mapping[str, Any],
    identity: Mapping[str, str],
    outputs: Mapping[str, str],
) -> None:
    """Write the record ``decoded_tasks.{decoder}`` of every decoder.

    Args:
        answers: from ``ask``.
        references: the arrays that were recorded of the reference, by decoder; none for the reference itself.
        tasks: as for ``ask``.
        identity: model and variant.
        outputs: paths (.json) by decoder.
    """
    for slug, scores in answers.items():
        metrics = []
        for task, own in scores.items():
            before = decoded.Scores.read(references[slug], task) if references else own
            greedy = answers[GREEDY][task] if slug != GREEDY else None
            metrics += decoded_scoring.metrics(task, own, before, greedy, identity["model"])
        arrays = {key: array for task, own in scores.items() for key, array in own.arrays(task).items()}
        records.write(
            outputs[slug],
            records.Measurement(metrics, arrays=arrays),
            probe=f"decoded_tasks.{slug}",
            version=VERSION,
            protocol=protocol(tasks),
            **identity,
        )


def protocol(tasks: Mapping[str, Any]) -> dict[str, Any]:
    """Return how the tasks were asked, for the record."""
    kept = {key: tasks[key] for key in ("items", "few_shot", "new_tokens", "seed", "seeds")}
    words = "_".join(f"{key}~{kept[key]}" for key in ("items", "few_shot", "new_tokens") if kept[key] is not None)
    return {"slug": f"lm-eval_{words}_seed~{kept['seed']}", **kept, "lm_eval": metadata.version("lm_eval")}


def _definition(module: ModuleType, articles: Sequence[Any], asking: decoded.Asking) -> dict[str, Any]:
    items = module.build(articles, asking.items, asking.seed)
    return module.definition(dataset(items, module.EXAMPLES))
