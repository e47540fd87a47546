"""Arithmetic: additions of small numbers after worked examples, answered by generating; correct is the exact number.

Made from a seed, so no text is needed. One-digit numbers are what a model of 10⁸ parameters can sometimes add; a larger
one should be asked gsm8k.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from hemorrhage.corpus.texts import Article
from hemorrhage.corpus.windows import rank
from hemorrhage.tasks.passages import Item

NAME = "arithmetic"
NUMBERS = range(2, 10)  # 0 and 1 are too easy
EXAMPLES = 8  # before each question, unless the config wants fewer


def build(articles: Iterable[Article], count: int, seed: int) -> list[Item]:
    """Return items with ``question`` and ``answer``, first the examples, in an order that the seed decides.

    Raises ValueError if there are fewer different additions.
    """
    pairs = [(a, b) for a in NUMBERS for b in NUMBERS]
    if count > (most := len(pairs) - EXAMPLES):
        raise ValueError(f"tasks: {count} items of {NAME} are asked for, but there are {most}; ask for fewer `items`.")
    drawn = sorted(pairs, key=lambda pair: rank(NAME, seed, *pair))[: EXAMPLES + count]
    return [{"question": f"{a} + {b}", "answer": str(a + b)} for a, b in drawn]


def definition(data: Any) -> dict[str, Any]:
    """Return the task in lm-eval's form; ``data`` gives the items, the split ``examples`` among them."""
    return {
        "task": NAME,
        "custom_dataset": data,
        "test_split": "test",
        "fewshot_split": "examples",
        "fewshot_config": {"sampler": "first_n"},
        "num_fewshot": EXAMPLES,
        "output_type": "generate_until",
        "doc_to_text": "{{question}} =",
        "doc_to_target": "{{answer}}",
        "target_delimiter": " ",
        "fewshot_delimiter": "\n",
        "generation_kwargs": {"until": ["\n"], "max_gen_toks": 6, "do_sample": False},
        "filter_list": [
            {
                "name": "number",
                "filter": [{"function": "regex", "regex_pattern": r"^\s*(\d+)"}, {"function": "take_first"}],
            }
        ],
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
    }
