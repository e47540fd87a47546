"""No modification: the reference, taken through the same path as every variant.

It costs nothing. Its logits are the reference's bit for bit, so every difference that is measured elsewhere is the
modification's and not the instrument's.
"""

from __future__ import annotations

from dataclasses import dataclass

NEEDS: frozenset[str] = frozenset()
AXIS = None
NEUTRAL: dict[str, object] = {}
EXAMPLE: dict[str, object] = {}
REPAIRS: tuple[str, ...] = ()
LEAVES_REFERENCE = True


@dataclass(frozen=True)
class Settings:
    """No settings."""


def apply(model, settings: Settings, data) -> dict[str, object]:
    """Leave the model as it is."""
    return {}
