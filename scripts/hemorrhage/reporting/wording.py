"""Numbers and states in words, the same everywhere: figures, summary and report."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from hemorrhage.analysis import thresholds

MISSING = "–"
FATAL = "fatal"


def severity(ratio: float, words: Sequence[Sequence[Any]]) -> str:
    """Return the severity word of a perplexity ratio; ``words`` is [[word, largest increase], ...], rising.

    What exceeds the last increase, or is not a number, is fatal.
    """
    return next((str(word) for word, largest in words if ratio <= 1 + float(largest)), FATAL)


def scale(words: Sequence[Sequence[Any]]) -> list[tuple[str, float]]:
    """Return the severity words with their largest increases, ``fatal`` at the end."""
    steps = [(str(word), float(largest)) for word, largest in words]
    return steps if math.isinf(steps[-1][1]) else [*steps, (FATAL, math.inf)]


def criterion(spec: Mapping[str, Any]) -> str:
    """Return a criterion for people: ``KL 0.1 nat``, ``perplexity +25 %``."""
    if "relative" in spec:
        return f"{100 * float(spec['relative']):g} % of the reference's {str(spec['metric']).replace('_', ' ')}"
    at = float(spec["at"])
    if spec["metric"] == "kl":
        return f"KL {at:g} nat"
    if spec["metric"] == "delta_nll":
        return f"perplexity +{100 * math.expm1(at):.0f} %" if at < 0.65 else f"perplexity ×{math.exp(at):.2g}"
    return f"{str(spec['metric']).replace('_', ' ')} {at:g}"


def axis(facts: Mapping[str, Any]) -> str:
    """Return the name of an axis: its unit, with the setting in front where the unit does not say it."""
    setting, unit = str(facts["setting"]).replace("_", " "), str(facts["unit"])
    return unit if setting in unit else f"{setting}, {unit}" if unit else setting


def damage_axis(facts: Mapping[str, Any]) -> str:
    """Return the name of an axis that is drawn with the harmless end first."""
    return f"{axis(facts)}  (more\N{NO-BREAK SPACE}damage\N{NO-BREAK SPACE}→)"


def primary(criteria: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the criterion that ranks: the middle one of those on KL, else the first."""
    on_kl = sorted(
        (name for name in criteria if criteria[name]["metric"] == "kl"), key=lambda name: float(criteria[name]["at"])
    )
    return on_kl[(len(on_kl) - 1) // 2] if on_kl else next(iter(criteria))


def number(value: float, digits: int = 3) -> str:
    """Return a number with ``digits`` significant digits; powers of ten only where they are needed."""
    if math.isnan(value):
        return MISSING
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if value == 0:
        return "0"
    size = abs(value)
    if size >= 1e5 or size < 1e-4:
        mantissa, exponent = f"{value:.{max(digits - 2, 0)}e}".split("e")
        return f"{mantissa}×10{_raised(int(exponent))}".replace("-", "−")
    decimals = max(digits - 1 - math.floor(math.log10(size)), 0)
    return f"{value:.{decimals}f}".replace("-", "−")


def signed(value: float, digits: int = 2) -> str:
    """Return a number with its sign."""
    return ("+" if value > 0 else "") + number(value, digits)


def interval(low: float, high: float, digits: int = 3) -> str:
    """Return an interval in brackets; empty if it is unknown."""
    if math.isnan(low) or math.isnan(high):
        return ""
    return f"[{number(low, digits)}, {number(high, digits)}]"


def level(value: float) -> str:
    """Return a level as short as it is."""
    return f"{value:g}".replace("-", "−") if math.isfinite(value) else number(value)


def threshold(row: Mapping[str, Any], facts: Mapping[str, Any]) -> str:
    """Return a threshold with its interval, or what its state says instead.

    Args:
        row: threshold, low, high, inside, outside, state.
        facts: of the axis; on an integer one the last level inside and the first outside are given.
    """
    state = row["state"]
    if state == thresholds.NOT_REACHED:
        return f"beyond {level(row['inside'])}"
    if state == thresholds.EXCEEDED:
        return f"exceeded at {level(row['outside'])}"
    if state != thresholds.INSIDE:
        return str(state)
    if facts["integer"]:
        return f"{level(row['inside'])} (not {level(row['outside'])})"
    if math.isnan(row["low"]):
        return f"{row['threshold']:.3f}"
    low, high = (number(row[end], 3) if math.isinf(row[end]) else f"{row[end]:.2f}" for end in ("low", "high"))
    return f"{row['threshold']:.2f} [{low}, {high}]"


def shift(row: Mapping[str, Any]) -> str:
    """Return the shift of a threshold with its interval, or the bound that is known; positive is further."""
    if row["shift_state"] == "at least":
        return f"at least {signed(row['shift_low'])}"
    if row["shift_state"] == "at most":
        return f"at most {signed(row['shift_high'])}"
    if math.isnan(row["shift"]):
        return str(row["shift_state"])
    if row["shift_state"] == "levels":
        ends = sorted({row["shift_low"], row["shift_high"]})
        moved = f"{row['shift']:+g}" if row["shift"] else "0"
        return moved + (f" [{level(ends[0])}, {level(ends[1])}]" if len(ends) > 1 else "")
    return f"{signed(row['shift'])} {interval(row['shift_low'], row['shift_high'], 2)}".strip()


def _raised(exponent: int) -> str:
    return "".join("⁻" if sign == "-" else "⁰¹²³⁴⁵⁶⁷⁸⁹"[int(sign)] for sign in str(exponent))
