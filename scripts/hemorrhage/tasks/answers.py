"""A model's answers to one task, item by item, and how lm-eval's logged samples are read as such.

Only numpy is used.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

UNKNOWN = -1  # the choice of a model whose probabilities are not finite


@dataclasses.dataclass(frozen=True)
class Answers:
    """Answers to N items.

    Attributes:
        ids: [N] int64, place of the item in its data set.
        digests: [N] uint64 of prompt and choices: two answers are compared only if these are equal.
        choice: [N] int64, the choice with the highest probability; without choices 1 if the target is what greedy
            decoding gives, else 0; -1 where a probability is not finite.
        correct: [N] bool.
        margin: [N] log-probability of the right choice less that of the best wrong one, nats; without choices that of
            the target. nan where a probability is not finite.
        chance: [N] probability of being right by guessing; 0 where that is unknown.
        normalised: [N] bool, correct by log-probability per character; empty if the task does not ask for it.
        has_choices: whether items have several choices.
    """

    ids: np.ndarray
    digests: np.ndarray
    choice: np.ndarray
    correct: np.ndarray
    margin: np.ndarray
    chance: np.ndarray
    normalised: np.ndarray
    has_choices: bool

    @classmethod
    def of(cls, rows: Sequence[Mapping[str, Any]], has_choices: bool) -> Answers:
        """Return the rows of ``answer`` as arrays."""
        columns = {key: [row[key] for row in rows] for key in rows[0]}
        kinds = {
            "id": np.int64,
            "digest": np.uint64,
            "choice": np.int64,
            "correct": bool,
            "margin": np.float64,
            "chance": np.float64,
        }
        arrays = {key: np.array(columns[key], dtype=kind) for key, kind in kinds.items()}
        graded = all(value is not None for value in columns["normalised"])
        normalised = np.array(columns["normalised"] if graded else [], dtype=bool)
        return cls(
            arrays["id"],
            arrays["digest"],
            arrays["choice"],
            arrays["correct"],
            arrays["margin"],
            arrays["chance"],
            normalised,
            has_choices,
        )

    def arrays(self, task: str) -> dict[str, np.ndarray]:
        """Return the arrays by the names under which a record keeps them."""
        fields = dataclasses.asdict(self)
        return {f"{task}.{key}": np.asarray(value) for key, value in fields.items()}

    @classmethod
    def read(cls, arrays: Mapping[str, np.ndarray], task: str) -> Answers:
        """Read what ``arrays`` gave. Raises ValueError if the task is not there."""
        names = [field.name for field in dataclasses.fields(cls)]
        missing = [name for name in names if f"{task}.{name}" not in arrays]
        if missing:
            raise ValueError(f"tasks: the reference's record has no answers to {task}; delete it and run again.")
        return cls(
            **{name: arrays[f"{task}.{name}"] for name in names[:-1]}, has_choices=bool(arrays[f"{task}.has_choices"])
        )


def answer(sample: Mapping[str, Any], right: Sequence[int] | None, choices: int) -> dict[str, Any]:
    """Return one row of ``Answers`` from a sample that lm-eval logged.

    Args:
        sample: has ``doc_id``, ``doc``, ``arguments`` and ``filtered_resps`` (log-probability, is greedy) per request.
        right: the right choices; None for a task without choices.
        choices: how many there are.
    """
    spoken = [(float(value), bool(greedy)) for value, greedy in sample["filtered_resps"]]
    found = {"id": sample["doc_id"], "digest": _digest(sample["arguments"]), "normalised": None}
    if right is None:
        (value, greedy), *_ = spoken
        finite = math.isfinite(value)
        return found | {
            "choice": int(greedy) if finite else UNKNOWN,
            "correct": greedy and finite,
            "margin": value if finite else math.nan,
            "chance": float(sample["doc"].get("chance", 0.0)),
        }
    values = np.array([value for value, _ in spoken[:choices]])
    wrong = [place for place in range(choices) if place not in right]
    finite = bool(np.isfinite(values).all())
    choice = int(values.argmax()) if finite else UNKNOWN
    if "acc_norm" in sample:
        found["normalised"] = bool(sample["acc_norm"]) and finite
    margin = values[list(right)].max() - values[wrong].max() if finite and wrong else math.nan
    return found | {
        "choice": choice,
        "correct": choice in right,
        "margin": float(margin),
        "chance": len(right) / choices,
    }


def _digest(arguments: Sequence[Sequence[Any]]) -> int:
    text = "\0".join(str(part) for request in arguments for part in request)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")
