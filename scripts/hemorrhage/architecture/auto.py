"""transformers' classes that choose an architecture, imported without scikit-learn.

With them transformers imports it for assisted generation, which nothing here uses: a second of every job's start.
"""

from __future__ import annotations

import sys

HIDDEN = "sklearn"
_was_there = HIDDEN in sys.modules
if not _was_there:
    sys.modules[HIDDEN] = None  # type: ignore[assignment]  # the import system's mark for "not installed"
try:
    from transformers import AutoConfig, AutoModelForCausalLM
finally:
    if not _was_there:
        del sys.modules[HIDDEN]

__all__ = ["AutoConfig", "AutoModelForCausalLM"]
