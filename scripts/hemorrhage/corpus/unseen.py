"""Articles that no modification has seen: what tasks may be built from."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hemorrhage import cache
from hemorrhage.corpus import texts
from hemorrhage.corpus.texts import Article
from hemorrhage.corpus.tokens import TokenSet
from hemorrhage.sources import fetch

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

BEGINNING = 40  # characters by which an article is recognised inside a window


def articles(
    source: Mapping[str, Any], token_sets: Iterable[str | os.PathLike], tokenizer: PreTrainedTokenizerBase
) -> list[Article]:
    """Return the articles of a text that none of the token sets touches.

    Args:
        source: ``source``, ``sha256`` and ``format`` of the text, as in the config.
        token_sets: files of the fit and calibration sets.
        tokenizer: the model's.

    Raises:
        ValueError: no article is left.
        OSError: the text cannot be fetched.
    """
    path = fetch.fetch(source["source"], source.get("sha256"), cache.downloads())
    found = untouched(texts.articles(path, source["format"]), [TokenSet.load(file) for file in token_sets], tokenizer)
    if not found:
        raise ValueError(
            f"{source['source']}: every article of it is in a fit or calibration set; name another text "
            "in the probe's settings."
        )
    return found


def untouched(
    found: Sequence[Article], token_sets: Sequence[TokenSet], tokenizer: PreTrainedTokenizerBase
) -> list[Article]:
    """Return the articles in which no window starts and that no window reaches into.

    A set knows the titles of the articles in which its windows start; an article that begins inside a window is found
    by its first characters.
    """
    titles = {title for token_set in token_sets for title in token_set.articles}
    windows = [str(tokenizer.decode(row.tolist())) for token_set in token_sets for row in token_set.tokens]
    return [
        article
        for article in found
        if article.title not in titles and not any(article.text[:BEGINNING] in window for window in windows)
    ]
