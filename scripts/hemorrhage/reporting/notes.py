"""What a reader must know of the reference models before reading any number: a sentence each."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from hemorrhage import files


def of(bases: Iterable[str | os.PathLike]) -> list[str]:
    """Return the notes for models from their ``base/hemorrhage.json``."""
    paths = sorted(map(Path, bases))
    return [note for path in paths for note in _of_model(path.parent.parent.name, files.read_json(path))]


def _of_model(name: str, record: dict) -> list[str]:
    sentences = [f"{name} comes from {record['source']} and is measured in {record['dtype']}."]
    if record["baseline"] != "dense":
        sentences.append(
            f"{name} is a {record['baseline']} baseline: its file holds quantized blocks, and the reference is what "
            "they decode to. Its weights already lie on a coarse grid in blocks of 32, so a format that has the same "
            "grid loses nothing on it by construction, and other formats lose what they would not lose on the "
            "original. Results at 4 bits on this model are no verdict on 4 bits."
        )
    return sentences
