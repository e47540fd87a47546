"""Articles as sentences and words: what the tasks that are built from a text are cut from."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from hemorrhage.corpus.texts import Article
from hemorrhage.corpus.windows import digest, rank

Item = dict[str, Any]
END = re.compile(r"(?<=[.!?])\s+(?=[A-Z])")  # abbreviations split too: a sentence may be short, never glued


def sentences(text: str) -> list[list[str]]:
    """Return the sentences of a text, each as its words with their punctuation."""
    return [sentence.split() for sentence in END.split(text.strip())]


def before(parts: Sequence[Sequence[str]], stop: int, fewest: int) -> tuple[int, list[str]]:
    """Return (first, words) of the fewest whole sentences that end before sentence ``stop`` and hold enough words.

    All sentences before ``stop`` if they hold fewer than ``fewest`` words.
    """
    words: list[str] = []
    first = stop
    while first > 0 and len(words) < fewest:
        first -= 1
        words = [*parts[first], *words]
    return first, words


def spread(
    articles: Iterable[Article], found: Callable[[Article, str], list[Item]], count: int, seed: int, name: str
) -> list[Item]:
    """Return ``count`` items, as evenly from all articles as they allow, in an order that the seed decides.

    Args:
        articles: where items come from; an article that comes twice counts once.
        found: all items of an article, the best first; the second argument is a digest that seeds its choices.
        count: how many are wanted.
        seed: of the study.
        name: of the task, for the order and the message.

    Raises:
        ValueError: the articles hold fewer items, with how many they hold.
    """
    unique = {digest(article): article for article in articles}
    ordered = sorted(unique, key=lambda key: rank(name, seed, key))
    rounds = itertools.zip_longest(*(found(unique[key], rank(name, seed, key)) for key in ordered))
    items = [item for turn in rounds for item in turn if item is not None]
    if len(items) < count:
        raise ValueError(
            f"tasks: {count} items of {name} are asked for, but the {len(ordered)} articles that no fit or calibration "
            f"set touches hold {len(items)}; ask for fewer `items`, or name another `text`."
        )
    return items[:count]
