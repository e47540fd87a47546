"""Cutting windows out of tokenized texts, and knowing how many bytes of text each window scores."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hemorrhage.corpus.protocol import Protocol
from hemorrhage.corpus.texts import Article

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

JOINT = "\n\n"


@dataclass(frozen=True)
class Window:
    """One row of a token set.

    Attributes:
        ids: token ids, BOS included.
        scored: positions first … last of ``ids`` whose prediction is scored.
        bytes: UTF-8 bytes of the text that the scored tokens stand for.
        article: title of the article in which it starts.
    """

    ids: list[int]
    scored: range
    bytes: int
    article: str


@dataclass(frozen=True)
class Encoded:
    """A tokenized text without special tokens.

    Attributes:
        text: the text.
        ids: its token ids.
        ends: per token where it ends in ``text`` (characters); empty if the tokenizer cannot say.
        titles: per article in it (first character, title), sorted.
    """

    text: str
    ids: list[int]
    ends: list[int]
    titles: list[tuple[int, str]]

    def cut(
        self,
        start: int,
        protocol: Protocol,
        tokenizer: PreTrainedTokenizerBase,
        is_first: bool = True,
        new: int | None = None,
    ) -> Window:
        """Return the window whose first text token is token ``start``; ``new`` scores only its last so many tokens."""
        stop = start + protocol.window
        first = protocol.first_scored(is_first) if new is None else protocol.length - new
        lead = self._lead(start, protocol, tokenizer)
        place = self._end(start - 1, tokenizer)
        title = self.titles[max(0, bisect_right(self.titles, place, key=lambda pair: pair[0]) - 1)][1]
        scored_bytes = self._bytes(start + first - len(lead), stop, tokenizer)
        return Window(lead + self.ids[start:stop], range(first, protocol.length), scored_bytes, title)

    def _lead(self, start: int, protocol: Protocol, tokenizer: PreTrainedTokenizerBase) -> list[int]:
        """What stands in front of a window."""
        if protocol.prefix == "previous" and start > 0:
            return [self.ids[start - 1]]
        return [opening(tokenizer, protocol)] if protocol.lead else []

    def articles_before(self, token: int, tokenizer: PreTrainedTokenizerBase) -> int:
        """Return how many articles the first ``token`` tokens touch."""
        end = self._end(token - 1, tokenizer)
        return sum(first < end for first, _ in self.titles)

    def next_article(self, token: int, tokenizer: PreTrainedTokenizerBase) -> int:
        """Return the first token of the first article that the first ``token`` tokens do not touch.

        The number of tokens if they touch every article.
        """
        end = self._end(token - 1, tokenizer)
        first = next((first for first, _ in self.titles if first >= end), len(self.text))
        return bisect_right(range(len(self.ids)), first, key=lambda place: self._end(place, tokenizer))

    def _end(self, token: int, tokenizer: PreTrainedTokenizerBase) -> int:
        """The character at which a token ends; 0 for the token before the first."""
        if token < 0:
            return 0
        return self.ends[token] if self.ends else len(tokenizer.decode(self.ids[: token + 1]))

    def _bytes(self, start: int, stop: int, tokenizer: PreTrainedTokenizerBase) -> int:
        if not self.ends:
            return len(str(tokenizer.decode(self.ids[start:stop])).encode())
        return len(self.text[self._end(start - 1, tokenizer) : self._end(stop - 1, tokenizer)].encode())


def opening(tokenizer: PreTrainedTokenizerBase, protocol: Protocol) -> int:
    """Return the token in front of a text: BOS, or for a prefix EOS if there is no BOS.

    Raises ValueError if the tokenizer has neither.
    """
    found = tokenizer.bos_token_id
    if found is None and not protocol.bos:
        found = tokenizer.eos_token_id
    if found is None:
        wanted, off = ("BOS", "set bos to false") if protocol.bos else ("a prefix", "set prefix to none")
        raise ValueError(f"the protocol asks for {wanted}, but the tokenizer has none; {off}.")
    return int(found)


def encode(articles: Sequence[Article], tokenizer: PreTrainedTokenizerBase) -> Encoded:
    """Return articles, joined by an empty line, tokenized once and without special tokens."""
    text = JOINT.join(article.text for article in articles)
    titles, place = [], 0
    for article in articles:
        titles.append((place, article.title))
        place += len(article.text) + len(JOINT)
    fast = bool(tokenizer.is_fast)
    # verbose: the text is longer than the model's context on purpose, which tokenizers warn about.
    found = tokenizer(
        text, add_special_tokens=False, return_attention_mask=False, return_offsets_mapping=fast, verbose=False
    )
    ends = [end for _, end in found["offset_mapping"]] if fast else []
    return Encoded(text, list(found["input_ids"]), ends, titles)


def digest(article: Article) -> str:
    """Return a digest of an article's text: equal texts are one article, whatever their titles and sources."""
    return hashlib.blake2b(article.text.encode(), digest_size=16).hexdigest()


def rank(*words: object) -> str:
    """Return a key to sort by: an order that a seed decides and that stays when other elements come or go."""
    return hashlib.blake2b("\0".join(map(str, words)).encode(), digest_size=16).hexdigest()
