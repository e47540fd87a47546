"""Token sets: the fixed windows that everything is measured, fitted and calibrated on.

Three kinds, told apart by name: ``evaluation``, ``fit`` and ``calibration.<name>``. Articles are taken in an order
that the seed decides, by the sets in the order in which they are given, and an article that ``evaluation`` or ``fit``
touched is in no later set, under whatever name of a text it comes. Only a text that is one article, as a plain file is,
can give several sets, of contiguous pieces that do not overlap. Calibration sets may overlap each other. So a set
depends on the sets before it that are no calibration sets, and on nothing else: adding a calibration set changes none
that exists.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from hemorrhage import files
from hemorrhage.corpus.protocol import Protocol
from hemorrhage.corpus.texts import Article
from hemorrhage.corpus.windows import Encoded, Window, digest, encode, opening, rank
from hemorrhage.settings import require, whole

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CALIBRATION = "calibration"
ALL = "all"


@dataclass(frozen=True)
class TokenSet:
    """Windows of token ids.

    Attributes:
        tokens: [B, L] int32; L is the protocol's window, and one more with BOS.
        scored: [B, L] bool; ``scored[b, t]`` says that the prediction of ``tokens[b, t]`` from ``tokens[b, :t]``
            counts. ``scored[:, 0]`` is False.
        bytes: [B] int64, UTF-8 bytes of the text that the scored tokens of a window stand for.
        articles: [B] titles of the articles in which the windows start.
        meta: set, text, sha256 of its source, protocol, seed, digests of titles and tokens.
    """

    tokens: np.ndarray
    scored: np.ndarray
    bytes: np.ndarray
    articles: list[str]
    meta: dict[str, Any]

    @property
    def hash(self) -> str:
        """A digest of the tokens and of which are scored."""
        state = hashlib.blake2b(f"{self.tokens.shape}".encode(), digest_size=16)
        state.update(np.ascontiguousarray(self.tokens, dtype="<i4").tobytes())
        state.update(np.ascontiguousarray(self.scored, dtype=bool).tobytes())
        return state.hexdigest()

    @property
    def protocol(self) -> Protocol:
        """The protocol of its windows."""
        return Protocol(**self.meta["protocol"])

    def save(self, path: str | os.PathLike) -> None:
        """Write an .npz; equal sets give equal bytes."""
        text = json.dumps({"articles": self.articles, "meta": self.meta}, sort_keys=True)
        files.write_arrays(
            path,
            tokens=self.tokens,
            scored=self.scored,
            bytes=self.bytes,
            json=np.frombuffer(text.encode(), dtype=np.uint8),
        )

    @classmethod
    def load(cls, path: str | os.PathLike) -> TokenSet:
        """Read what ``save`` wrote. Raises ValueError if the tokens are not those that were recorded."""
        with np.load(path) as arrays:
            content = json.loads(arrays["json"].tobytes())
            loaded = cls(arrays["tokens"], arrays["scored"], arrays["bytes"], content["articles"], content["meta"])
        if loaded.hash != loaded.meta["hash"]:
            raise ValueError(f"{path}: its tokens are not those that it records; delete it and run again.")
        return loaded


def build(
    set_name: str,
    specs: Mapping[str, Mapping[str, Any]],
    articles_by_text: Mapping[str, Sequence[Article]],
    tokenizer: PreTrainedTokenizerBase,
    seed: int,
    checksums: Mapping[str, str] | None = None,
) -> TokenSet:
    """Return one token set.

    Windows of ``evaluation`` and ``fit`` are, with joining ``article``, the first tokens of one article each, and
    with joining ``contiguous`` consecutive pieces of all articles joined, from the first article on that no set before
    touched. Windows of a calibration set are drawn by
    the seed: with ``article`` round after round one from every article that is left, with ``contiguous`` anywhere in
    what is left.

    Args:
        set_name: a key of ``specs``.
        specs: the sets in order, at least those before ``set_name``; each has ``text`` (a key of
            ``articles_by_text``), ``windows`` (a number or "all"), ``protocol`` (a name or settings) and may have
            ``seed`` (calibration sets only; the order of the draw).
        articles_by_text: the articles of every text that the sets up to this one name.
        tokenizer: the model's.
        seed: decides the order of the articles.
        checksums: sha256 of the source of every text, for the record.

    Raises:
        ValueError: a text that is too short, with what is needed and what there is; a wrong setting.
    """
    require(set_name, specs, "token set")
    picker = _Picker(articles_by_text, tokenizer, seed)
    before = itertools.takewhile(lambda name: name != set_name, specs)
    for name in before:
        if not _is_calibration(name):
            picker.pick(name, specs[name])
    spec = specs[set_name]
    windows = picker.pick(set_name, spec)
    titles = [window.article for window in windows]
    result = TokenSet(
        np.array([window.ids for window in windows], dtype=np.int32),
        np.array([[place in window.scored for place in range(len(window.ids))] for window in windows], dtype=bool),
        np.array([window.bytes for window in windows], dtype=np.int64),
        titles,
        {},
    )
    result.meta.update(
        {
            "set": set_name,
            "text": spec["text"],
            "sha256": (checksums or {}).get(spec["text"]),
            "seed": seed,
            "own_seed": spec.get("seed"),
            "protocol": _protocol(set_name, spec).as_dict(),
            "windows": len(windows),
            "articles": hashlib.blake2b("\n".join(titles).encode(), digest_size=16).hexdigest(),
            "hash": result.hash,
        }
    )
    return result


@dataclass
class _Picker:
    """Picks the sets one after another and remembers what they took.

    Attributes:
        picked: digests of the articles taken whole.
        touched: per text the digests of the articles that contiguous windows reach into.
        cursor: per text the first token after the contiguous windows.
    """

    articles_by_text: Mapping[str, Sequence[Article]]
    tokenizer: PreTrainedTokenizerBase
    seed: int
    picked: set[str] = field(default_factory=set)
    touched: dict[str, set[str]] = field(default_factory=dict)
    cursor: dict[str, int] = field(default_factory=dict)

    def pick(self, name: str, spec: Mapping[str, Any]) -> list[Window]:
        """Return the windows of a set; what an evaluation or fit set takes is remembered."""
        protocol = _protocol(name, spec)
        wanted = None if spec["windows"] == ALL else whole(f"tokens.{name}.windows", spec["windows"], 1)
        require(spec["text"], self.articles_by_text, f"text in tokens.{name}")
        if protocol.lead:
            try:
                opening(self.tokenizer, protocol)
            except ValueError as error:
                raise ValueError(f"tokens.{name}: {error}") from None
        own = self._own_articles if protocol.joining == "article" else self._contiguous
        drawn = self._rounds if protocol.joining == "article" else self._scattered
        return (drawn if _is_calibration(name) else own)(name, spec, protocol, wanted)

    def _left(self, text: str, besides: Iterable[str]) -> list[Article]:
        """The articles of a text that nothing took, each text once, in the text's order."""
        out = self.picked.union(*(self.touched.get(key, ()) for key in besides))
        return list(
            {key: article for article in self.articles_by_text[text] if (key := digest(article)) not in out}.values()
        )

    def _long_articles(self, text: str, protocol: Protocol, seed: object) -> Iterator[tuple[str, Encoded]]:
        """(digest, tokens) of the articles left that hold a window, in the seed's order."""
        ranked = sorted(
            (rank(seed, key := digest(article)), key, article) for article in self._left(text, self.touched)
        )
        for _, key, article in ranked:
            encoded = encode([article], self.tokenizer)
            if len(encoded.ids) >= protocol.window:
                yield key, encoded

    def _own_articles(self, name: str, spec: Mapping[str, Any], protocol: Protocol, wanted: int | None) -> list[Window]:
        found = list(itertools.islice(self._long_articles(spec["text"], protocol, self.seed), wanted))
        self._require_enough(name, spec, protocol, len(found), wanted, "articles")
        self.picked.update(key for key, _ in found)
        return [encoded.cut(0, protocol, self.tokenizer) for _, encoded in found]

    def _rounds(self, name: str, spec: Mapping[str, Any], protocol: Protocol, wanted: int | None) -> list[Window]:
        seed = spec.get("seed", self.seed)
        found = list(self._long_articles(spec["text"], protocol, f"{CALIBRATION} {seed}"))
        window = protocol.window
        turns = [
            [(encoded, start) for start in _drawn(range(0, len(encoded.ids) - window + 1, window), seed, key)]
            for key, encoded in found
        ]
        order = [turn for turns_of_round in itertools.zip_longest(*turns) for turn in turns_of_round if turn]
        self._require_enough(name, spec, protocol, len(order), wanted, "pieces of articles")
        return [encoded.cut(start, protocol, self.tokenizer) for encoded, start in order[:wanted]]

    def _joined(self, text: str, protocol: Protocol, step: int) -> tuple[list[Article], Encoded, range]:
        """The text that contiguous windows are cut from, and where windows can start that nothing took."""
        # What other texts' windows touch is out; this text's own is passed by the cursor.
        articles = self._left(text, [key for key in self.touched if key != text])
        encoded = encode(articles, self.tokenizer)
        return articles, encoded, range(self._start(text, encoded), len(encoded.ids) - protocol.window + 1, step)

    def _start(self, text: str, encoded: Encoded) -> int:
        """The token at which contiguous windows go on."""
        cursor = self.cursor.get(text, 0)
        # An article in which windows end is theirs to its end, unless the text has no other.
        if not cursor or len(self.articles_by_text[text]) == 1:
            return cursor
        return encoded.next_article(cursor, self.tokenizer)

    def _contiguous(self, name: str, spec: Mapping[str, Any], protocol: Protocol, wanted: int | None) -> list[Window]:
        text = spec["text"]
        articles, encoded, starts = self._joined(text, protocol, int(protocol.stride or protocol.window))
        tail = len(encoded.ids) - (starts[-1] + protocol.window) if starts and protocol.tail == "shift" else 0
        self._require_enough(name, spec, protocol, len(starts) + bool(tail), wanted, "consecutive pieces")
        windows = [
            encoded.cut(start, protocol, self.tokenizer, is_first=place == 0)
            for place, start in enumerate(starts[:wanted])
        ]
        end = starts[len(windows) - 1] + protocol.window
        if tail and len(windows) < (wanted or len(starts) + 1):
            end = len(encoded.ids)
            windows.append(encoded.cut(end - protocol.window, protocol, self.tokenizer, new=tail))
        self.cursor[text] = end
        reached = articles[: encoded.articles_before(end, self.tokenizer)]
        self.touched.setdefault(text, set()).update(map(digest, reached))
        return windows

    def _scattered(self, name: str, spec: Mapping[str, Any], protocol: Protocol, wanted: int | None) -> list[Window]:
        _, encoded, starts = self._joined(spec["text"], protocol, protocol.window)
        self._require_enough(name, spec, protocol, len(starts), wanted, "pieces")
        chosen = _drawn(starts, spec.get("seed", self.seed), spec["text"])[:wanted]
        return [encoded.cut(start, protocol, self.tokenizer) for start in chosen]

    def _require_enough(
        self, name: str, spec: Mapping[str, Any], protocol: Protocol, found: int, wanted: int | None, unit: str
    ) -> None:
        if found >= (wanted or 1):
            return
        hint = " (a .txt file is one article: set joining to contiguous)" if unit == "articles" else ""
        raise ValueError(
            f"tokens.{name}: {wanted or 1} {unit} with {protocol.window} tokens each are needed, but text "
            f"'{spec['text']}' has {found} left{hint}; ask for fewer or shorter windows, or give a longer text."
        )


def _drawn(starts: Sequence[int], *words: object) -> list[int]:
    return sorted(starts, key=lambda start: rank(*words, start))


def _is_calibration(name: str) -> bool:
    return name.split(".")[0] == CALIBRATION


def _protocol(name: str, spec: Mapping[str, Any]) -> Protocol:
    try:
        return Protocol.of(spec["protocol"])
    except ValueError as error:
        raise ValueError(f"tokens.{name}: {error}") from None
