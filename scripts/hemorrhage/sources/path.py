"""``path:`` a file or folder on this machine, absolute or relative to the working directory.

For a model a Hugging Face folder or a .gguf file, for a text a .txt or .jsonl file or what its format reads.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from hemorrhage import checksums


def check(rest: str) -> None:
    """Raise ValueError if the path does not exist."""
    if not Path(rest).expanduser().exists():
        raise ValueError(
            f"path:{rest} does not exist; name an existing file or folder, absolute or relative to {Path.cwd()}."
        )


def fetch(rest: str, sha256: str | None, cache: Path, trust: Collection[str]) -> Path:
    """Return the path itself, verified; nothing is copied. Raises ValueError if it is missing or differs."""
    check(rest)
    path = Path(rest).expanduser()
    checksums.verify(path, sha256, f"path:{rest}")
    return path
