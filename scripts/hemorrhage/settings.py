"""What a plug-in says about its settings: checks with readable messages, and the axis of its damage.

Only the standard library is used: the Snakefile is parsed with these classes, on machines without torch.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Axis:
    """The one setting of a modification that grows its damage.

    Attributes:
        setting: name of the field in the module's ``Settings``.
        harmless: the value at which the modification leaves the model unchanged, or None if no value does.
        rises: True if a larger value does more damage (sparsity), False if a smaller one does (bits).
        integer: True if values between two levels have no meaning (bits, blocks).
        unit: the word under the axis of a figure.
    """

    setting: str
    harmless: float | None
    rises: bool = True
    integer: bool = False
    unit: str = ""


def require(value: object, known: Iterable[object], what: str) -> None:
    """Raise ValueError that names ``value``, what is allowed and the nearest allowed word."""
    known = list(known)
    if value in known:
        return
    near = difflib.get_close_matches(str(value), [str(word) for word in known], n=1)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    allowed = ", ".join(str(word) for word in known) or "none"
    raise ValueError(f"unknown {what} '{value}'.{hint} Known: {allowed}.")


def number(name: str, value: object) -> float:
    """Return ``value`` as a float; YAML reads 1e-3 as a string. Raises ValueError naming the setting."""
    try:
        if isinstance(value, bool):
            raise ValueError
        result = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise ValueError(f"{name}: {value!r} is not a number.") from None
    if not math.isfinite(result):
        raise ValueError(f"{name}: {value!r} is not finite.")
    return result


def between(name: str, value: object, low: float, high: float) -> float:
    """Return ``value`` as a float in [low, high]; raises ValueError naming setting, value and range."""
    result = number(name, value)
    if not low <= result <= high:
        raise ValueError(f"{name}: {value!r} is outside the allowed range {low:g} to {high:g}.")
    return result


def whole(name: str, value: object, low: int, high: int | None = None) -> int:
    """Return ``value`` as an int in [low, high]; raises ValueError naming setting, value and range."""
    result = number(name, value)
    if result != int(result) or result < low or (high is not None and result > high):
        limit = f"{low} to {high}" if high is not None else f"{low} or more"
        raise ValueError(f"{name}: {value!r} is not a whole number of {limit}.")
    return int(result)


def canonical(value: object) -> object:
    """Return numbers in one form, so that ``4`` and ``4.0`` are one setting and one slug."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value
