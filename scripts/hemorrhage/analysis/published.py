"""The published numbers as data: series of perplexity against sparsity, dense values, fits, derived crossings.

All of LLaMA-2-7B on WikiText-2. resources/published/README.md tells where they come from and what is wrong with them.
"""

from __future__ import annotations

import csv
import math
import re
from dataclasses import dataclass

import numpy as np

from hemorrhage import plugins

FOLDER = plugins.PROJECT / "resources" / "published"
TOLERANCES = {"plus_5": 1.05, "plus_25": 1.25, "times_2": 2.0, "times_10": 10.0}  # as perplexity ratios
MORE = "plus_1.5_ppl"
SWAPPED = ("wanda_owl", {0.3: 0.4, 0.4: 0.3})  # D7: two cells of Table 2 are exchanged


@dataclass(frozen=True)
class Series:
    """One method's perplexity against the pruned fraction.

    Attributes:
        levels: [L] pruned fraction, without the dense model.
        perplexity: [L].
        dense: perplexity of the unmodified model at the same window.
        context: the window, in tokens.
    """

    levels: np.ndarray
    perplexity: np.ndarray
    dense: float
    context: str


def rows(name: str) -> list[dict[str, str]]:
    """Return the rows of ``resources/published/<name>.tsv``."""
    with (FOLDER / f"{name}.tsv").open(encoding="utf8") as handle:
        return list(csv.DictReader(handle, delimiter="\t"))


def dense(context: str) -> float:
    """Return LLaMA-2-7B's own perplexity at a window."""
    return next(float(row["perplexity"]) for row in rows("dense") if row["context"] == context)


def tables(method: str, calibration: str = "default") -> Series | None:
    """Return a method's series of Tables 1 to 3, swapped cells put right; n:m patterns are left out."""
    used = ("table3",) if calibration == "ptb" else ("table1", "table2")
    swaps = SWAPPED[1] if method == SWAPPED[0] and calibration == "default" else {}
    return _series(method, used, calibration, swaps)


def figures(method: str) -> Series | None:
    """Return a method's plotted points of the follow-up; None if there are none."""
    return _series(method, ("fig2_svg", "fig3_svg"), "default", {})


def fits() -> dict[str, dict[str, float]]:
    """Return the published fit parameters by method."""
    keys = ("s0", "ppl_s0", "a", "b", "k1", "k2")
    return {row["method"]: {key: float(row[key]) for key in keys} for row in rows("paper_thresholds")}


def round_values(method: str) -> dict[str, float]:
    """Return the parameters of a published fit that lie on round values (D20), s0 left out."""
    note = next(row["note"] for row in rows("paper_thresholds") if row["method"] == method)
    found = re.findall(r"\b(a|k1|k2|s0) at round value ([\d.]*\d)", note)
    return {name: float(value) for name, value in found if name != "s0"}


def tail(method: str) -> str:
    """Return the tail that the follow-up gave a method."""
    return "exponential" if fits()[method]["k2"] == 0 else "quadratic"


def tolerated(series: Series) -> dict[str, float]:
    """Return the tolerances of the crossings in nats above the dense model."""
    found = {name: math.log(ratio) for name, ratio in TOLERANCES.items()}
    return {**found, MORE: math.log((series.dense + 1.5) / series.dense)}


def _series(method: str, used: tuple[str, ...], calibration: str, swaps: dict[float, float]) -> Series | None:
    wanted = [
        row
        for row in rows("paper_pruning")
        if row["method"] == method
        and row["table"] in used
        and row["calibration"] == calibration
        and (row["model"], row["dataset"]) == ("LLaMA-2-7B", "wikitext2")
        and ":" not in row["level"]
    ]
    if not wanted:
        return None
    levels = np.array([swaps.get(float(row["level"]), float(row["level"])) for row in wanted])
    order = np.argsort(levels)
    perplexity = np.array([float(row["perplexity"]) for row in wanted])
    return Series(levels[order], perplexity[order], dense(wanted[0]["context"]), wanted[0]["context"])
