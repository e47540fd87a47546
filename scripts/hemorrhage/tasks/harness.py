"""Asking a model a task through lm-eval's Python API, and nothing of lm-eval that is shared between runs.

No cache of answers (its key does not hold the model), no bootstrap pools, no files of its own, no process groups. Each
task is run by itself: the batches that its items form, and so its numbers, do not depend on which others are asked.
"""

from __future__ import annotations

import contextlib
import difflib
import logging
import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hemorrhage.corpus.windows import rank
from hemorrhage.tasks.answers import Answers, answer

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

LOCAL = "local:"
LAUNCHER = ("WORLD_SIZE", "RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE")  # lm-eval waits for the ranks they announce
ENVIRONMENT = "add_env_info"
SUPPORTED = ("multiple_choice", "loglikelihood")


class Harness:
    """lm-eval around one model.

    Attributes:
        batch: requests in one forward pass.
        seed: of the choice of items.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, batch: int, seed: int) -> None:
        from lm_eval.models.huggingface import HFLM
        from lm_eval.tasks import TaskManager

        logging.getLogger("lm_eval").setLevel(logging.ERROR)
        self.batch, self.seed = batch, seed
        # Without one, lm-eval reads all of its 13,000 definitions every time it is asked.
        self._no_tasks = TaskManager(include_defaults=False)
        self._model = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch)

    def ask(self, label: str, tasks: Sequence[Any], count: int) -> Answers:
        """Return the model's answers to ``count`` items that the seed draws from all of ``tasks`` together.

        Raises ValueError for a task that is not answered by comparing probabilities.
        """
        from lm_eval import simple_evaluate

        for task in tasks:
            _require_probabilities(label, task)
        samples = drawn(label, self.seed, tasks, count)
        chosen = [task for task in tasks if samples[task.task_name]]
        with _alone():
            found = simple_evaluate(
                self._model,
                tasks=chosen,
                samples={task.task_name: samples[task.task_name] for task in chosen},
                task_manager=self._no_tasks,
                bootstrap_iters=0,
                log_samples=True,
                use_cache=None,
                cache_requests=False,
            )
        rows = [_row(task, sample) for task in chosen for sample in _first_filter(found["samples"][task.task_name])]
        return Answers.of(rows, chosen[0].OUTPUT_TYPE == "multiple_choice")


def drawn(label: str, seed: int, tasks: Sequence[Any], count: int) -> dict[str, list[int]]:
    """Return per task the places of the items: a fixed random subset of all of them together, not the first ones."""
    places = [(task.task_name, place) for task in tasks for place in range(len(task.eval_docs))]
    taken = set(sorted(places, key=lambda place: rank(label, seed, *place))[:count])
    return {
        task.task_name: [place for name, place in places if name == task.task_name and (name, place) in taken]
        for task in tasks
    }


@contextlib.contextmanager
def loaded(names: Sequence[str], built_in: Mapping[str, dict[str, Any]]) -> Iterator[dict[str, list[Any]]]:
    """Yield lm-eval's task objects by label; a group such as mmlu is one label with all its tasks.

    Args:
        names: tasks: a key of ``built_in``, a task or group of lm-eval, ``local:`` with a folder or a .yaml file of
            task definitions in lm-eval's form.
        built_in: definitions of the tasks that are built at run time.

    Raises:
        ValueError: a name that lm-eval does not know.
        OSError: a data set that cannot be loaded.
    """
    from lm_eval.tasks import TaskManager

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        bare = TaskManager(include_defaults=False)
        found: dict[str, list[Any]] = {}
        shelf = None
        for name in names:
            if name in built_in:
                found[name] = list(bare.load([built_in[name]])["tasks"].values())
            elif name.startswith(LOCAL):
                with _cache(scratch):
                    found |= _local(Path(name.removeprefix(LOCAL)), bare)
            else:
                shelf = shelf or TaskManager()
                found[label(name)] = _named(name, shelf)
        yield found


def label(name: str) -> str:
    """Return a task's name as a word that can be part of a metric's name."""
    return re.sub(r"\W+", "_", name).strip("_")


def dataset(items: Sequence[Mapping[str, Any]], examples: int = 0) -> Any:
    """Return what lm-eval calls for the data of a task that is built at run time: {"test": items}.

    The first ``examples`` items become worked examples, in the split ``examples``.
    """
    import datasets

    rows = [dict(item) for item in items]
    found = {"test": datasets.Dataset.from_list(rows[examples:])}
    if examples:
        found["examples"] = datasets.Dataset.from_list(rows[:examples])
    return lambda **_: found


def _local(path: Path, bare: Any) -> dict[str, list[Any]]:
    """The tasks of a folder of definitions, each by itself, or of one file."""
    from lm_eval.tasks import TaskManager

    if path.is_dir():
        manager = TaskManager(include_path=str(path), include_defaults=False)
        specs = manager.all_subtasks
    else:
        manager, specs = bare, [str(path)]
    if not specs or not path.exists():
        raise ValueError(
            f"tasks: '{LOCAL}{path}' holds no task; give a folder of .yaml files in lm-eval's form or one of them."
        )
    tasks = [task for spec in specs for task in _load(spec, manager)]
    return {label(task.task_name): [task] for task in tasks}


def _named(name: str, manager: Any) -> list[Any]:
    if name not in manager.all_tasks:
        near = difflib.get_close_matches(name, manager.all_tasks, n=1)
        raise ValueError(f"tasks: lm-eval has no task '{name}'." + (f" Did you mean '{near[0]}'?" if near else ""))
    return _load(name, manager)


def _load(spec: str, manager: Any) -> list[Any]:
    try:
        return list(manager.load([spec])["tasks"].values())
    # A data set is reached through several libraries, each with errors of its own; all mean the same to the user.
    except Exception as error:
        reason = (str(error) or type(error).__name__).strip().splitlines()[0]
        raise OSError(
            f"tasks: '{spec}' cannot be loaded ({reason}); a task of the hub needs the network once, a local "
            "one a definition in lm-eval's form with files that exist."
        ) from error


@contextlib.contextmanager
def _cache(folder: str) -> Iterator[None]:
    """Local files are read into a cache of this job: jobs that fill one together have broken each other's files."""
    import datasets

    before = datasets.config.HF_DATASETS_CACHE
    datasets.config.HF_DATASETS_CACHE = Path(folder)
    try:
        yield
    finally:
        datasets.config.HF_DATASETS_CACHE = before


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Without what a launcher left in the environment, and without the list of installed packages.

    lm-eval adds that list to its results, which takes it a second or more for each task; nothing here reads it.
    """
    from lm_eval import evaluator

    kept = {name: os.environ.pop(name) for name in LAUNCHER if name in os.environ}
    describe = getattr(evaluator, ENVIRONMENT, None)
    try:
        setattr(evaluator, ENVIRONMENT, lambda results: None)
        yield
    finally:
        setattr(evaluator, ENVIRONMENT, describe)
        os.environ.update(kept)


def _require_probabilities(label: str, task: Any) -> None:
    if task.OUTPUT_TYPE not in SUPPORTED:
        raise ValueError(
            f"tasks: {label} has the output type {task.OUTPUT_TYPE}; only {' and '.join(SUPPORTED)} are "
            "answered by comparing probabilities."
        )


def _first_filter(samples: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The samples of the first way of reading the responses, in the order of the data set."""
    first = [sample for sample in samples if sample["filter"] == samples[0]["filter"]]
    return sorted(first, key=lambda sample: sample["doc_id"])


def _row(task: Any, sample: Mapping[str, Any]) -> dict[str, Any]:
    if task.OUTPUT_TYPE != "multiple_choice":
        return answer(sample, None, 1)
    doc = sample["doc"]
    choices = list(task.doc_to_choice(doc))
    gold = task.doc_to_text(doc) if task.multiple_input else task.doc_to_target(doc)
    right = [
        choices.index(place) if isinstance(place, str) else int(place)
        for place in (gold if isinstance(gold, list | tuple) else [gold])
    ]
    return answer(sample, right, len(choices))
