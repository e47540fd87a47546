"""True continuation: which of three passages of one article follows the passage given.

The passage given ends in the middle of a sentence, and all three continue from the middle of a sentence of the same
article with the same number of words, so neither topic nor length tells them apart. Correct is the one to which the
model gives the highest probability; chance is 1/3.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from hemorrhage.corpus.texts import Article
from hemorrhage.corpus.windows import rank
from hemorrhage.tasks.passages import Item, sentences, spread

NAME = "continuation"
CHOICES = 3
CONTEXT = 24  # words
FOLLOWING = 8
OPENING = 5  # words of the broken sentence that stand in the passage given
APART = 4  # sentences between the true and a false continuation


def build(articles: Iterable[Article], count: int, seed: int) -> list[Item]:
    """Return items with ``text``, ``choices`` and ``gold``; raises ValueError if the articles hold fewer."""
    return spread(articles, _items, count, seed, NAME)


def definition(data: Any) -> dict[str, Any]:
    """Return the task in lm-eval's form; ``data`` gives the items."""
    return {
        "task": NAME,
        "custom_dataset": data,
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "text",
        "doc_to_choice": "choices",
        "doc_to_target": "gold",
        "target_delimiter": " ",
        "metric_list": [
            {"metric": metric, "aggregation": "mean", "higher_is_better": True} for metric in ("acc", "acc_norm")
        ],
    }


def _items(article: Article, key: str) -> list[Item]:
    parts = sentences(article.text)
    broken = [place for place, part in enumerate(parts) if len(part) >= OPENING + FOLLOWING]
    items: list[Item] = []
    free = 0  # first sentence that no item has used
    for place in broken:
        first, words = _context(parts, place)
        others = [other for other in broken if not first - APART <= other <= place + APART]
        false = sorted(others, key=lambda other: rank(key, place, other))[: CHOICES - 1]
        if first >= free and len(words) == CONTEXT and len(false) == CHOICES - 1:
            items.append(_item(parts, words, place, false, key))
            free = place + 1
    return sorted(items, key=lambda item: rank(key, item["text"]))


def _context(parts: Sequence[Sequence[str]], place: int) -> tuple[int, list[str]]:
    """(first sentence, words) of the passage that ends after the opening of sentence ``place``."""
    words, first = list(parts[place][:OPENING]), place
    while first > 0 and len(words) < CONTEXT:
        first -= 1
        words = [*parts[first], *words]
    return first, words[-CONTEXT:]


def _item(parts: Sequence[Sequence[str]], words: list[str], place: int, false: list[int], key: str) -> Item:
    order = sorted([place, *false], key=lambda other: rank(key, "order", place, other))
    choices = [" ".join(parts[other][OPENING : OPENING + FOLLOWING]) for other in order]
    return {"text": " ".join(words), "choices": choices, "gold": order.index(place)}
