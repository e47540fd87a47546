"""Which source files a job depends on: the import closure of its script inside the package, found with ast.

Plug-ins are loaded by name, so they are not in the closure of others; a job names those of its variant itself. The
files are inputs of the rules: what a changed file can change is made again, and nothing else. Package ``__init__``
files are empty and stay out.
"""

from __future__ import annotations

import ast
import os
from collections.abc import Iterable
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@cache
def imports(file: Path) -> tuple[Path, ...]:
    """Return the files of this project that ``file`` imports, at any depth of its code."""
    package = file.relative_to(ROOT).parent.parts
    names: set[tuple[str, ...]] = set()
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.Import):
            names |= {tuple(alias.name.split(".")) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) + 1 - node.level] if node.level else ()
            base = (*start, *(node.module or "").split(".")) if node.module else start
            names |= {base} | {(*base, alias.name) for alias in node.names}
    places = [ROOT.joinpath(*name).with_suffix(".py") for name in sorted(names) if name]
    return tuple(place for place in places if place.is_file())


@cache
def _closure(start: tuple[Path, ...]) -> tuple[Path, ...]:
    seen: set[Path] = set()
    queue = list(start)
    while queue:
        file = queue.pop()
        if file not in seen:
            seen.add(file)
            queue.extend(imports(file))
    return tuple(sorted(seen))


def closure(files: Iterable[str | os.PathLike]) -> list[Path]:
    """Return ``files`` and everything of this project that they import, sorted, absolute."""
    return list(_closure(tuple(sorted(Path(file).resolve() for file in files))))


def sources(*files: str | os.PathLike) -> list[str]:
    """Return the closure as paths relative to the working directory.

    Snakemake re-runs everything when absolute inputs change their folder; relative ones survive a move.
    """
    return [os.path.relpath(file) for file in closure(files)]
