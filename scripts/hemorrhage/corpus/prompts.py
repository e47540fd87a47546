"""The prompts that continuations start from: windows of the evaluation set, or a file; fixed and hashed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from hemorrhage.corpus.tokens import TokenSet

WINDOWS = 8  # of the evaluation set, where a config names no number
FEWEST = 2  # prompts are what is resampled


@dataclass(frozen=True)
class Prompt:
    """One prompt.

    Attributes:
        id: its place among the prompts, from 0; with the seed and the step it fixes the noise of a sample.
        tokens: token ids.
        text: the tokens as text.
    """

    id: int
    tokens: tuple[int, ...]
    text: str

    @property
    def hash(self) -> str:
        """16 hexadecimal digits of the token ids: two texts are compared only if these are equal."""
        return hashlib.blake2b(np.asarray(self.tokens, "<i8").tobytes(), digest_size=8).hexdigest()


def from_tokens(token_set: TokenSet, tokenizer: Any, count: int | None, length: int) -> list[Prompt]:
    """Return the first ``length`` tokens of the first ``count`` windows, of 8 if it is None.

    Raises ValueError if the set has fewer windows or shorter ones.
    """
    windows, window = token_set.tokens.shape
    count = WINDOWS if count is None else count
    if count > windows:
        raise ValueError(
            f"decoding.prompts.count: {count} prompts are asked for, but the evaluation set has {windows} windows."
        )
    if length > window:
        raise ValueError(f"decoding.prompts.tokens: {length} tokens are asked for, but a window has {window}.")
    return _prompts([row[:length].tolist() for row in token_set.tokens[:count]], tokenizer)


def from_file(path: str | Path, tokenizer: Any, count: int | None = None) -> list[Prompt]:
    """Return the prompts of a file: one a line, or the key "prompt" of every line of a .jsonl file.

    Empty lines are left out; special tokens are added as the tokenizer does by default; ``count`` takes the first ones,
    None all of them. Raises OSError if there is no such file and ValueError naming file and line if a prompt cannot be
    read, or the file if it has fewer than ``count`` or than 2.
    """
    texts = _lines(Path(path))
    if len(texts) < FEWEST:
        held = "one prompt" if texts else "no prompt"
        raise ValueError(f"{path}: there is {held} in this file; write {FEWEST} or more, one a line.")
    if count is not None and len(texts) < count:
        raise ValueError(f"{path}: decoding.prompts.count asks for {count} prompts, but the file has {len(texts)}.")
    texts = texts[:count]
    sequences = [list(tokenizer(text)["input_ids"]) for text in texts]
    for text, sequence in zip(texts, sequences, strict=True):
        if not sequence:
            raise ValueError(f"{path}: the tokenizer makes no token of the prompt {text!r}.")
    return _prompts(sequences, tokenizer)


def _lines(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf8").split("\n")
    except UnicodeDecodeError:
        raise ValueError(f"{path}: this is not UTF-8 text.") from None
    filled = [(number, line.rstrip("\r")) for number, line in enumerate(lines, 1) if line.strip()]
    return [_field(path, number, line) if path.suffix == ".jsonl" else line for number, line in filled]


def _field(path: Path, number: int, line: str) -> str:
    try:
        text = json.loads(line)["prompt"]
    except (ValueError, KeyError, TypeError):
        text = None
    if not isinstance(text, str):
        raise ValueError(f'{path}: line {number} is not a JSON object with a text under the key "prompt".')
    return text


def _prompts(sequences: Sequence[Sequence[int]], tokenizer: Any) -> list[Prompt]:
    texts = [tokenizer.decode(list(tokens), skip_special_tokens=True) for tokens in sequences]
    return [
        Prompt(i, tuple(int(t) for t in tokens), text)
        for i, (tokens, text) in enumerate(zip(sequences, texts, strict=True))
    ]
