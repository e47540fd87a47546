"""Where downloads and checkpoints are kept: outside the results, shared by all studies of a user."""

from __future__ import annotations

import os
from pathlib import Path

VARIABLE = "HEMORRHAGE_CACHE"


def root() -> Path:
    """Return the cache folder: $HEMORRHAGE_CACHE, else $XDG_CACHE_HOME/hemorrhage, else ~/.cache/hemorrhage."""
    if os.environ.get(VARIABLE):
        return Path(os.environ[VARIABLE]).expanduser().resolve()
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "hemorrhage"


def downloads() -> Path:
    """Return the folder of fetched models and texts."""
    return root() / "downloads"


def checkpoints() -> Path:
    """Return the folder of the variants' checkpoints."""
    return root() / "checkpoints"
