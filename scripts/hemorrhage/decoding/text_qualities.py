"""What the texts of one decoder are like, prompt by prompt."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from hemorrhage.decoding import text_measures


def qualities(lines: Mapping[int, Mapping[int | None, dict[str, Any]]]) -> dict[str, np.ndarray]:
    """Return what texts are like, per prompt as the mean over its seeds, [prompts] each.

    Length in tokens, the share that was cut at the limit, repetition of n-grams, distinct n-grams of each text (two
    texts together share words, so a decoder with more seeds would look less diverse), and how much a text is like
    those of the other prompts (self-BLEU, first seed; nan without another prompt).
    """
    rows = [list(found.values()) for found in lines.values()]
    tokens = [[line["tokens"] for line in found] for found in rows]
    found = {
        "length": [np.mean([len(text) for text in texts]) for texts in tokens],
        "unfinished_share": [np.mean([not line["finished"] for line in entry]) for entry in rows],
        "self_bleu": text_measures.self_bleu([texts[0] for texts in tokens]),
    }
    for n in text_measures.ORDERS:
        found[f"rep_{n}"] = [np.mean([text_measures.repetition(text, n) for text in texts]) for texts in tokens]
    for n in (1, 2):
        found[f"distinct_{n}"] = [np.mean([text_measures.distinct([text], n) for text in texts]) for texts in tokens]
    return {name: np.array(values, dtype=np.float64) for name, values in found.items()}
