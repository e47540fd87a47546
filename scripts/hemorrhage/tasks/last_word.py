"""Last-word cloze: give the word that ends a passage and that the passage has used before, as in LAMBADA.

The passage is made of whole sentences. Its last word has at least five letters and stands earlier in the passage, so
reading the passage helps; correct is a model whose most probable tokens spell exactly that word. Chance is that of
taking any such word of the passage.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from hemorrhage.corpus.texts import Article
from hemorrhage.corpus.windows import rank
from hemorrhage.tasks.passages import Item, before, sentences, spread

NAME = "last_word"
FEWEST_WORDS = 40  # of a passage
MOST_WORDS = 90
NEAREST = 4  # words between the earlier use and the end: an echo of the same phrase is no test of reading
WORD = re.compile(r"[A-Za-z]{5,}")


def build(articles: Iterable[Article], count: int, seed: int) -> list[Item]:
    """Return items with ``text``, ``target`` and ``chance``; raises ValueError if the articles hold fewer."""
    return spread(articles, _items, count, seed, NAME)


def definition(data: Any) -> dict[str, Any]:
    """Return the task in lm-eval's form; ``data`` gives the items."""
    return {
        "task": NAME,
        "custom_dataset": data,
        "test_split": "test",
        "output_type": "loglikelihood",
        "doc_to_text": "text",
        "doc_to_target": "target",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    }


def _items(article: Article, key: str) -> list[Item]:
    parts = sentences(article.text)
    items: list[Item] = []
    free = 0  # first sentence that no passage has used
    for stop in range(1, len(parts) + 1):
        first, words = before(parts, stop, FEWEST_WORDS)
        if first >= free and FEWEST_WORDS <= len(words) <= MOST_WORDS and (item := _cut(words)):
            items.append(item)
            free = stop
    return sorted(items, key=lambda item: rank(key, item["text"]))


def _cut(words: list[str]) -> Item | None:
    """The passage without its last word, if that is a plain word that it has used before."""
    target = words[-1].removesuffix(".")
    if target == words[-1] or not WORD.fullmatch(target):
        return None
    used = [match for word in words[:-1] for match in WORD.findall(word)]
    if target not in used or any(target in word for word in words[-1 - NEAREST : -1]):
        return None
    # For tasks without choices lm-eval takes the target as it stands, its leading space too.
    return {"text": " ".join(words[:-1]), "target": f" {target}", "chance": 1 / len(set(used))}
