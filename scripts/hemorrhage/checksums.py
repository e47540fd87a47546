"""The sha256 of a file, or of a folder as one value."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from hemorrhage import files


def sha256(path: str | os.PathLike) -> str:
    """Return the sha256 of a file's content in hexadecimal.

    A folder's is the sha256 of the lines ``<name><NUL><sha256 of the content><newline>`` of its files, the names
    relative to the folder, with ``/``, sorted; bytecode that Python left there is not counted.
    """
    path = Path(path)
    if path.is_file():
        return files.digest(path, "sha256")
    state = hashlib.sha256()
    names = sorted(
        file.relative_to(path).as_posix()
        for file in path.rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    )
    for name in names:
        state.update(f"{name}\0{files.digest(path / name, 'sha256')}\n".encode())
    return state.hexdigest()


def verify(path: str | os.PathLike, expected: str | None, source: str) -> None:
    """Raise ValueError naming the expected and the found checksum if they differ; None accepts everything."""
    if expected is None:
        return
    found = sha256(path)
    if found != expected.lower():
        raise ValueError(
            f"{source}: expected sha256 {expected}, found {found}; correct `sha256` in the config if the content "
            f"changed on purpose, else delete {path} and run again."
        )
