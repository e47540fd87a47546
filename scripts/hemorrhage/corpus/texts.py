"""Texts as articles: what the token windows are cut from, and what they are kept apart by.

An article is the unit that never stands in two token sets: a Wikipedia article, a play, a line of a .jsonl file. A
plain file is one article, of which two sets can only take different pieces.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hemorrhage.corpus import plays, wikipedia
from hemorrhage.settings import require

BUILDERS = {".parquet": "parquet", ".json": "json", ".jsonl": "json", ".csv": "csv", ".txt": "text"}


@dataclass(frozen=True)
class Article:
    """A title, which need not be unique, and a text."""

    title: str
    text: str


def articles(path: str | os.PathLike, format: str, column: str = "text") -> list[Article]:
    """Return the articles of a text in the order of the file.

    Args:
        path: the file or folder, as ``sources.fetch`` returns it.
        format: ``wikipedia_dump`` (pages-articles XML, .bz2 or not), ``plays`` (a folder of Markdown plays),
            ``plain`` (a .txt file is one article), ``jsonl`` (a line is one article), ``dataset`` (files of a hub
            data set: .parquet, .json, .jsonl, .csv, .txt and their .gz; a row is one article).
        column: the key or column of the text, for ``jsonl`` and ``dataset``.

    Raises:
        ValueError: an unknown format, a file that does not have it, or no article in it.
        OSError: the file cannot be read.
    """
    require(format, FORMATS, "text format")
    try:
        found = FORMATS[format](Path(path), column)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start}).") from None
    if not any(article.text.strip() for article in found):
        raise ValueError(f"{path}: no article was found in it; check that its format is '{format}'.")
    return found


def _wikipedia(path: Path, column: str) -> list[Article]:
    return [Article(title, text) for title, markup in wikipedia.pages(path) if (text := wikipedia.prose(markup))]


def _plays(path: Path, column: str) -> list[Article]:
    contents = [(file, file.read_text(encoding="utf8")) for file in sorted(path.rglob("*.md"))]
    return [Article(plays.title(content, file), plays.speeches(content)) for file, content in contents]


def _plain(path: Path, column: str) -> list[Article]:
    # newline="": a text is measured as it is, byte for byte.
    with path.open(encoding="utf8", newline="") as handle:
        return [Article(path.stem, handle.read())]


def _jsonl(path: Path, column: str) -> list[Article]:
    with path.open(encoding="utf8") as handle:
        return [_row(path, number, line, column) for number, line in enumerate(handle, 1) if line.strip()]


def _row(path: Path, number: int, line: str, column: str) -> Article:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}, line {number}: not valid JSON ({error.msg}).") from None
    if not isinstance(row, dict) or not isinstance(row.get(column), str):
        raise ValueError(f"{path}, line {number}: no text under the key '{column}'.")
    return Article(str(row.get("title", f"{path.stem} {number}")), row[column])


def _dataset(path: Path, column: str) -> list[Article]:
    """Rows keep their order, empty ones included: joined texts are published with them."""
    import datasets

    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    endings = {Path(file.name.removesuffix(".gz")).suffix for file in files}
    if len(endings) != 1:
        raise ValueError(f"{path}: files of one kind are needed, found {', '.join(sorted(endings)) or 'none'}.")
    require(ending := endings.pop(), BUILDERS, "data set file")
    datasets.disable_progress_bars()
    # A cache of its own: jobs that fill one cache at the same time have broken each other's files.
    with tempfile.TemporaryDirectory() as cache:
        try:
            table = datasets.load_dataset(
                BUILDERS[ending], data_files=[str(file) for file in files], split="train", cache_dir=cache
            )
        except datasets.exceptions.DatasetGenerationError as error:
            raise ValueError(f"{path}: the data set files cannot be read ({error}).") from None
        require(column, table.column_names, f"column in {path}")
        return [Article(f"{path.name} row {number}", text or "") for number, text in enumerate(table[column], 1)]


FORMATS: dict[str, Callable[[Path, str], list[Article]]] = {
    "wikipedia_dump": _wikipedia,
    "plays": _plays,
    "plain": _plain,
    "jsonl": _jsonl,
    "dataset": _dataset,
}
