"""Where models and texts come from: ``kind:rest``, one file of this folder for each kind, found by walking it.

A kind defines

- a docstring: what ``rest`` looks like;
- ``check(rest) -> None``: raises ValueError with one sentence for what is wrong and can be known without fetching;
- ``fetch(rest, sha256, cache, trust) -> Path``: the file or folder on this machine, verified, complete.

Only the standard library is imported while the Snakefile is parsed.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Collection
from pathlib import Path
from types import ModuleType

from hemorrhage.settings import require


def kinds() -> list[str]:
    """Return the kinds of sources: the files of this folder beside this one."""
    here = Path(__file__).resolve()
    return sorted(file.stem for file in here.parent.glob("*.py") if file != here and not file.stem.startswith("_"))


def check(source: str) -> None:
    """Raise ValueError if a source has an unknown kind, a wrong form, or is a local path that does not exist."""
    kind, rest = _split(source)
    _module(kind).check(rest)


def fetch(source: str, sha256: str | None, cache: str | os.PathLike, trust: Collection[str] = ()) -> Path:
    """Return the file or folder of a source on this machine; what is in the cache is not fetched again.

    Args:
        source: ``package:…``, ``path:…`` or ``hub:…``; the files of this folder describe their forms.
        sha256: of the file or folder (``checksums.sha256``), or None.
        cache: folder that downloads go into.
        trust: "pickles" and "remote_code" if pickled weights, and code that comes with a model, may be fetched.

    Raises:
        ValueError: a wrong form, something missing, a checksum that differs.
        OSError: the package registry or the hub cannot be reached.
    """
    kind, rest = _split(source)
    return Path(_module(kind).fetch(rest, sha256, Path(cache), trust))


def _split(source: str) -> tuple[str, str]:
    kind, colon, rest = source.partition(":")
    if not colon or not rest:
        raise ValueError(f"source '{source}' has no kind; write it as kind:name with one of {', '.join(kinds())}.")
    require(kind, kinds(), "source kind")
    return kind, rest


def _module(kind: str) -> ModuleType:
    return importlib.import_module(f"hemorrhage.sources.{kind}")
