"""Writing files so that a killed run leaves nothing half written, and reading them back.

Everything is written under a temporary name beside its target and then renamed. Arrays and JSON come out byte-equal
for equal content: no dates, sorted keys, one form for numbers that are not finite.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import math
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

PARTIAL = ".part-"


@contextlib.contextmanager
def atomic(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; it replaces ``path`` if the block ends without an error.

    The block may make a file or a directory. On an error what it made is removed and ``path`` is as it was.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    part = _partial(target)
    try:
        yield part
        if target.is_dir():
            remove(target)
        os.replace(part, target)
    finally:
        remove(part)


def remove(path: str | os.PathLike) -> None:
    """Remove a file or a directory; nothing happens if there is none.

    A directory leaves its name in one step: a process that is killed meanwhile leaves no half of it there.
    """
    path = Path(path)
    if path.is_dir() and not path.is_symlink():
        with contextlib.suppress(FileNotFoundError):  # another process was faster
            path = path.rename(_partial(path))
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _partial(path: Path) -> Path:
    """A name beside ``path`` for what is not whole; the suffix stays last, by which numpy and pandas choose."""
    return path.with_name(f"{PARTIAL}{uuid.uuid4().hex[:12]}-{path.name}")


@contextlib.contextmanager
def locked(path: str | os.PathLike, wait: bool = True) -> Iterator[bool]:
    """Hold an exclusive operating-system lock on ``path``; the kernel frees it when the process ends.

    Yields True, or False if ``wait`` is False and another process holds it.
    """
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a", encoding="utf8") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        yield True


def write_text(path: str | os.PathLike, text: str) -> None:
    """Write UTF-8 text."""
    with atomic(path) as part:
        part.write_text(text, encoding="utf8")


def write_json(path: str | os.PathLike, content: object) -> None:
    """Write strict JSON with sorted keys; numbers that are not finite become "inf", "-inf" and "nan"."""
    write_text(path, json.dumps(_plain(content), sort_keys=True, indent=1, allow_nan=False, ensure_ascii=False) + "\n")


def read_json(path: str | os.PathLike) -> Any:
    """Read JSON. Raises ValueError with the path if it is not JSON."""
    try:
        return json.loads(Path(path).read_text(encoding="utf8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: not valid JSON ({error}).") from None


def write_arrays(path: str | os.PathLike, **arrays: np.ndarray) -> None:
    """Write an .npz; equal arrays give equal bytes (numpy writes a fixed date into the archive)."""
    with atomic(path) as part:
        np.savez_compressed(part, **dict(sorted(arrays.items())))  # type: ignore[arg-type]


def digest(path: str | os.PathLike, algorithm: str = "blake2b") -> str:
    """Return the hexadecimal digest of a file's content."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, algorithm).hexdigest()


def _plain(content: Any) -> Any:
    """Builtin values only: numpy scalars unwrapped, non-finite numbers as words."""
    if isinstance(content, dict):
        return {str(key): _plain(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_plain(value) for value in content]
    if isinstance(content, np.generic):
        content = content.item()
    if isinstance(content, float) and not math.isfinite(content):
        return "nan" if math.isnan(content) else ("inf" if content > 0 else "-inf")
    if isinstance(content, os.PathLike):
        return os.fspath(content)
    return content
