"""Tasks that are answered by a program: MBPP, and local ones of its form; every program runs in the sandbox.

lm-eval scores such tasks by running the programs as they are, in the same process group and with the network; its
definition of mbpp is therefore not used. The prompt is the same: three worked examples (the problems 2, 3 and 4), the
tests in the question, the answer up to ``[DONE]``. Austin et al. 2021, "Program Synthesis with Large Language Models".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

NAME = "mbpp"
PATH, SHOTS = "google-research-datasets/mbpp", (2, 3, 4)
TESTS = "test_list"
BEFORE = ("test_setup_code", "test_imports")  # what a problem may bring beside its tests


def definition(data: Any = None) -> dict[str, Any]:
    """Return MBPP in lm-eval's form; ``data`` gives the splits ``test`` and ``examples``, the hub's by default."""
    question = "{{text}} Your code should pass these tests:\n\n{{test_list | join('\n')}}\n[BEGIN]\n"
    return {
        "task": NAME,
        "custom_dataset": data or _from_hub,
        "unsafe_code": True,
        "test_split": "test",
        "fewshot_split": "examples",
        "fewshot_config": {"sampler": "first_n"},
        "num_fewshot": len(SHOTS),
        "output_type": "generate_until",
        "doc_to_text": f"You are an expert Python programmer, and here is your task: {question}",
        "doc_to_target": "{{code}}\n[DONE]",
        "target_delimiter": "",
        "generation_kwargs": {"until": ["[DONE]"], "max_gen_toks": 256, "do_sample": False},
        "metric_list": [{"metric": "bypass"}],
    }


def is_code(task: Any) -> bool:
    """Whether answers to a task are programs."""
    return bool(getattr(task, "UNSAFE_CODE", False)) or TESTS in task.eval_docs.features


def program(doc: Mapping[str, Any], response: str) -> str:
    """Return the program that succeeds if the response passes the tests of a problem.

    Raises ValueError if the problem has no tests of MBPP's form.
    """
    if not isinstance(doc.get(TESTS), list) or not doc[TESTS]:
        raise ValueError(
            f"tasks: a program is tested by the statements of '{TESTS}', which this problem does not have."
        )
    extra = [part for key in BEFORE for part in _lines(doc.get(key))]
    return "\n".join([*extra, response, *map(str, doc[TESTS])]) + "\n"


def _lines(value: Any) -> list[str]:
    return [str(part) for part in value] if isinstance(value, list) else [str(value)] if value else []


def _from_hub(**_: Any) -> dict[str, Any]:
    import datasets

    found = datasets.load_dataset(PATH, "full")
    return {"test": found["test"], "examples": found["prompt"].filter(lambda doc: doc["task_id"] in SHOTS)}
