"""How much of a model its cuts took: the share of the weights of all targets that a variant no longer has.

The level of a cut does not tell: it is a number of blocks, or a share of the hidden size.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from hemorrhage import files
from hemorrhage.analysis import tables

COLUMNS = ["model", "variant", "removed"]


def collect(modifications: Iterable[str], path: str) -> None:
    """Write cuts.tsv: a row per model and variant, with the share of weights that is gone (zeros are not).

    Args:
        modifications: paths ``…/{model}/variants/{variant}/modification.json``.
        path: cuts.tsv.
    """
    rows = [
        [Path(each).parents[2].name, Path(each).parent.name, removed(files.read_json(each)["achieved"])]
        for each in sorted(map(str, modifications))
    ]
    tables.write(pd.DataFrame(rows, columns=COLUMNS), path)


def read(path: str) -> dict[tuple[str, str], float]:
    """Return (model, variant) -> share of weights that is gone."""
    return {(row.model, row.variant): float(row.removed) for row in tables.rows(tables.read(path))}


def removed(achieved: Iterable[Mapping[str, Any]]) -> float:
    """Return the share of the targets' weights that the steps of a recipe took away, by what each achieved.

    Blocks are alike, so that the share of blocks is one of weights.
    """
    kept = 1.0
    for step in achieved:
        if "weights_before" in step:
            kept *= step["weights_after"] / step["weights_before"]
        elif step["method"] == "drop_blocks":
            kept *= 1 - step["share"]
    return 1 - kept
