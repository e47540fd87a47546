"""Tables: reading and writing tab-separated files, and collecting the records of a study into them.

Only ``collect`` reads record files; thresholds, comparisons, figures and report read what it writes. Rows are sorted,
so nothing depends on the order of the inputs. An empty cell is "does not apply" or "unknown".
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hemorrhage import files
from hemorrhage.corpus.protocol import Protocol

METRICS = [
    "model",
    "variant",
    "family",
    "method",
    "sweep",
    "arm",
    "level",
    "probe",
    "metric",
    "value",
    "se",
    "low",
    "high",
    "n",
    "blocks",
    "unit",
    "protocol",
]
WINDOWS = ["model", "variant", "probe", "metric", "window", "sum", "count"]
FLOORS = ["model", "floor", "metric", "value"]
NUMBERS = (
    "value",
    "se",
    "low",
    "high",
    "tolerance",
    "threshold",
    "inside",
    "outside",
    "threshold_baseline",
    "threshold_mitigated",
    "shift",
    "shift_low",
    "shift_high",
    "value_baseline",
    "value_mitigated",
    "difference",
    "difference_low",
    "difference_high",
)


def write(frame: pd.DataFrame, path: str | os.PathLike) -> None:
    """Write a frame as tab-separated text with numbers in their shortest exact form."""
    with files.atomic(path) as part:
        frame.to_csv(part, sep="\t", index=False, na_rep="", lineterminator="\n")


def read(path: str | os.PathLike) -> pd.DataFrame:
    """Read a table; text stays text (an empty cell is ""), numbers are numbers (an empty cell is nan)."""
    frame = pd.read_csv(path, sep="\t", keep_default_na=False, dtype=str)
    for column in frame.columns.intersection(list(NUMBERS)):
        # float() is exact; pandas' own parser may miss the last digit.
        frame[column] = [float(cell) if cell else math.nan for cell in frame[column]]
    for column in frame.columns.intersection(["n", "blocks", "levels"]):
        frame[column] = pd.to_numeric(frame[column]).astype("Int64")
    return frame


def rows(frame: pd.DataFrame) -> list[Any]:
    """Return the rows as named tuples."""
    return list(frame.itertuples(index=False))


def dicts(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows as dicts."""
    return [{str(key): value for key, value in row.items()} for row in frame.to_dict("records")]


def groups(frame: pd.DataFrame, by: str | list[str], sort: bool = True) -> list[tuple[Any, pd.DataFrame]]:
    """Return (key, rows) per group; without ``sort`` in the order of the rows."""
    return list(frame.groupby(by, sort=sort))


def collect(records: Iterable[str], study: Mapping[str, Any], metrics_path: str, windows_path: str) -> None:
    """Write metrics.tsv and windows.parquet from the records of every model, variant and probe.

    Args:
        records: paths of ``{probe}.json`` and ``text/{decoder}.json``; an ``.npz`` of the same stem beside one holds
            its window sums as ``windows.{metric}`` [B] and ``windows.count`` [B].
        study: the grid: variants (family, method, sweeps), axes, repairs, recipes.
        metrics_path: one row per variant x metric x sweep; a variant in no sweep has one row with empty sweep.
        windows_path: long form, one row per variant x metric x window.
    """
    lines: list[dict[str, Any]] = []
    windows: list[pd.DataFrame] = []
    for path in sorted(map(str, records)):
        record = files.read_json(path)
        lines.extend(_rows(record, study["variants"][record["variant"]]))
        arrays = Path(path).with_suffix(".npz")
        if arrays.exists():
            windows.extend(_windows(record, arrays))
    order = ["model", "family", "method", "sweep", "_level", "variant", "probe", "metric"]
    frame = pd.DataFrame(lines, columns=[*METRICS, "_level"]).sort_values(order, kind="stable")
    write(frame[METRICS], metrics_path)
    empty = pd.DataFrame(columns=WINDOWS)
    long = pd.concat(windows, ignore_index=True) if windows else empty
    long = long.sort_values(WINDOWS[:5], kind="stable", ignore_index=True)
    with files.atomic(windows_path) as part:
        long.to_parquet(part, index=False)


def collect_floors(references: Mapping[str, str], path: str) -> None:
    """Write floors.tsv from each model's ``reference.json`` (its key "floors": floor -> value, or metric -> value).

    A floor given as a bare number is a KL divergence in nats.
    """
    lines: list[dict[str, Any]] = []
    for model, reference in sorted(references.items()):
        for floor, values in sorted(files.read_json(reference)["floors"].items()):
            by_metric = values if isinstance(values, dict) else {"kl": values}
            name = floor.removeprefix("floor_")
            lines.extend(
                {"model": model, "floor": name, "metric": metric, "value": float(value)}
                for metric, value in sorted(by_metric.items())
            )
    write(pd.DataFrame(lines, columns=FLOORS), path)


def read_windows(path: str | os.PathLike) -> dict[tuple[str, str, str], tuple[np.ndarray, np.ndarray]]:
    """Return (model, variant, metric) -> sums [B], counts [B]; of a metric that two probes have, fidelity's."""
    frame = pd.read_parquet(path).sort_values(["model", "variant", "metric", "window"], kind="stable")
    found = {
        key: (group["sum"].to_numpy(dtype=float), group["count"].to_numpy(dtype=float))
        for key, group in groups(frame, ["probe", "model", "variant", "metric"])
    }
    order = sorted(found, key=lambda key: key[0] == "fidelity")
    return {key[1:]: found[key] for key in order}


def _rows(record: Mapping[str, Any], facts: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row per metric and sweep of a record."""
    shared = {
        "model": record["model"],
        "variant": record["variant"],
        "family": facts["family"],
        "method": facts["method"],
        "probe": record["probe"],
        "protocol": protocol_slug(record["protocol"]),
    }
    numbers = ("value", "se", "low", "high")
    return [
        {
            **shared,
            "sweep": sweep,
            "arm": arm,
            "level": level,
            "_level": _place(level),
            "metric": metric["metric"],
            **{key: float(metric[key]) for key in numbers},
            "n": metric["n"],
            "blocks": metric["blocks"],
            "unit": metric["unit"],
        }
        for metric in record["metrics"]
        for sweep, arm, level in facts["sweeps"] or [("", "", "")]
    ]


def _place(level: Any) -> float:
    """A level as a number to sort by; words come last."""
    try:
        return float(level)
    except (TypeError, ValueError):
        return float("inf")


def _windows(record: Mapping[str, Any], path: Path) -> list[pd.DataFrame]:
    with np.load(path, allow_pickle=False) as arrays:
        if "windows.count" not in arrays.files:
            return []  # a probe that does not measure windows
        counts = arrays["windows.count"].astype(float)
        names = sorted(key for key in arrays.files if key.startswith("windows.") and key != "windows.count")
        return [
            pd.DataFrame(
                {
                    "model": record["model"],
                    "variant": record["variant"],
                    "probe": record["probe"],
                    "metric": name.removeprefix("windows."),
                    "window": np.arange(len(counts)),
                    "sum": arrays[name].astype(float),
                    "count": counts,
                }
            )[WINDOWS]
            for name in names
        ]


def protocol_slug(protocol: Mapping[str, Any] | str) -> str:
    """Return the protocol of a record as one word for a table's cell."""
    if isinstance(protocol, str):
        return protocol
    if "slug" in protocol:
        return str(protocol["slug"])
    known = [field.name for field in dataclasses.fields(Protocol)]
    if set(protocol) <= set(known):
        return Protocol(**protocol).slug
    return " ".join(f"{key}={protocol[key]}" for key in sorted(protocol))
