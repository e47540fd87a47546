"""Tables of texts: how many still agree at each place, and reference and variant side by side.

No torch: the texts lie in the files with the place where each token ends.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hemorrhage import records
from hemorrhage.analysis import tables
from hemorrhage.decoding import text_measures, trajectories
from hemorrhage.planning.variants import REFERENCE

DIVERGENCE = ["model", "variant", "decoder", "effect", "place", "value", "low", "high"]
TEXTS = [
    "model",
    "variant",
    "decoder",
    "prompt",
    "seed",
    "divergence",
    "failure",
    "prompt_text",
    "shared",
    "reference",
    "text",
]
ROOT = "results/models"


def collect_divergence(paths: Iterable[str], out: str | os.PathLike) -> None:
    """Write divergence.tsv: the share of pairs with equal first n tokens, n = ``place``, and its interval."""
    lines = []
    for path in sorted(map(str, paths)):
        record = records.read(path)
        for name, curve in sorted(record.measurement.arrays.items()):
            effect = name.removesuffix(".prefix")
            lines += [
                [record.model, record.variant, record.probe.removeprefix("text."), effect, place, *row]
                for place, row in enumerate(curve.tolist())
            ]
    tables.write(pd.DataFrame(lines, columns=DIVERGENCE), out)


def collect_texts(
    models: Sequence[str],
    variants: Sequence[str],
    decoders: Sequence[str],
    out: str | os.PathLike,
    root: str | os.PathLike = ROOT,
) -> None:
    """Write texts.tsv: a row per model, variant, decoder, prompt and seed, the reference's own texts left out.

    ``shared`` is the text up to the first difference, ``reference`` and ``text`` are how each goes on.

    Args:
        models: names of the models.
        variants: slugs.
        decoders: slugs.
        out: the table.
        root: the folder that holds the results of every model.
    """
    rows: list[dict[str, Any]] = []
    for model in models:
        for decoder in decoders:
            folder = Path(root) / model / "variants"
            reference = trajectories.read(folder / REFERENCE / "text" / f"{decoder}.jsonl")
            own = _nll(folder / REFERENCE, decoder)
            for variant in variants:
                if variant != REFERENCE:
                    found = trajectories.read(folder / variant / "text" / f"{decoder}.jsonl")
                    excess = _nll(folder / variant, decoder) - own
                    rows += [
                        {"model": model, "variant": variant, "decoder": decoder, **row}
                        for row in _pairs(found, reference, excess)
                    ]
    tables.write(pd.DataFrame(rows, columns=TEXTS), out)


def _pairs(found: trajectories.Lines, reference: trajectories.Lines, excess: np.ndarray) -> list[dict[str, Any]]:
    """One row per prompt and seed; ``excess`` [prompts, seeds]."""
    rows = []
    for place, (prompt, lines) in enumerate(found.items()):
        for turn, (seed, line) in enumerate(lines.items()):
            other = reference[prompt][seed]
            at = _parting(line["tokens"], other["tokens"])
            end = line["ends"][at - 1] if at else 0
            failure = text_measures.failure(
                line["tokens"], other["tokens"], line["finished"], float(excess[place, turn])
            )
            rows.append(
                {
                    "prompt": prompt,
                    "seed": "" if seed is None else seed,
                    "divergence": at,
                    "failure": failure,
                    "prompt_text": _line(line["prompt_text"]),
                    "shared": _line(line["text"][:end]),
                    "reference": _line(other["text"][end:]),
                    "text": _line(line["text"][end:]),
                }
            )
    return rows


def _parting(a: Sequence[int], b: Sequence[int]) -> int:
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _line(text: str) -> str:
    """The text without characters that end a row or a cell of the table, or that no page can show."""
    marked = text.replace("\n", " ⏎ ").replace("\t", " ").replace("\r", " ")
    return "".join(character if character.isprintable() else "\ufffd" for character in marked)


def _nll(folder: Path, decoder: str) -> np.ndarray:
    with np.load(folder / "forced.npz", allow_pickle=False) as archive:
        return archive[f"nll.{decoder}"]
