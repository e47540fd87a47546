"""Facts: give the year that a passage names, after the beginning of the statement; correct is the exact year.

The passage is made of whole sentences and names at least two different years, the one asked for once; the last words
before it are repeated as the question. It stands in the passage, so nothing has to be known, only read: what is lost
is the use of the context, and not what the model has learned.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from hemorrhage.corpus.texts import Article
from hemorrhage.corpus.windows import rank
from hemorrhage.tasks.passages import Item, before, sentences, spread

NAME = "facts"
FEWEST_WORDS, MOST_WORDS = 25, 60  # of a passage
CUE = 4  # words before the year that are repeated
EXAMPLES = 4
YEAR = re.compile(r"(1[0-9]|20)\d\d[.,;:)]*")


def build(articles: Iterable[Article], count: int, seed: int) -> list[Item]:
    """Return items with ``passage``, ``cue`` and ``answer``, first the examples.

    Raises ValueError if the articles hold fewer.
    """
    return spread(articles, _items, EXAMPLES + count, seed, NAME)


def definition(data: Any) -> dict[str, Any]:
    """Return the task in lm-eval's form; ``data`` gives the items, the split ``examples`` among them."""
    return {
        "task": NAME,
        "custom_dataset": data,
        "test_split": "test",
        "fewshot_split": "examples",
        "fewshot_config": {"sampler": "first_n"},
        "num_fewshot": 0,
        "output_type": "generate_until",
        "doc_to_text": "{{passage}}\n\nThe text says: {{cue}}",
        "doc_to_target": "{{answer}}",
        "target_delimiter": " ",
        "generation_kwargs": {"until": ["\n"], "max_gen_toks": 6, "do_sample": False},
        "filter_list": [
            {
                "name": "year",
                "filter": [{"function": "regex", "regex_pattern": r"^\s*(\d{4})(?!\d)"}, {"function": "take_first"}],
            }
        ],
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
    }


def _items(article: Article, key: str) -> list[Item]:
    parts = sentences(article.text)
    items: list[Item] = []
    free = 0  # first sentence that no passage has used
    for stop in range(1, len(parts) + 1):
        first, words = before(parts, stop, FEWEST_WORDS)
        if first >= free and FEWEST_WORDS <= len(words) <= MOST_WORDS and (item := _ask(words, key)):
            items.append(item)
            free = stop
    return sorted(items, key=lambda item: rank(key, item["passage"]))


def _ask(words: list[str], key: str) -> Item | None:
    """A question for one of the years, if there are two and one stands there once after enough words."""
    places = [place for place, word in enumerate(words) if YEAR.fullmatch(word)]
    years = [words[place][:4] for place in places]
    text = " ".join(words)
    asked = [
        place
        for place, year in zip(places, years, strict=True)
        if place >= CUE and text.count(year) == 1 and text.count(" ".join(words[place - CUE : place])) == 1
    ]
    if len(set(years)) < 2 or not asked:
        return None
    place = min(asked, key=lambda place: rank(key, "year", text, place))
    return {"passage": text, "cue": " ".join(words[place - CUE : place]), "answer": words[place][:4]}
