"""Records: what one probe found of one variant, as a JSON file and an archive of arrays of the same stem.

``{probe}.json`` holds model, variant, probe, the probe's version, the protocol and the metrics; ``{probe}.npz`` holds
``windows.{metric}`` [B] (sums over the scored tokens of each window), ``windows.count`` [B] (how many those are) and
``tokens.{metric}`` [B, L] (nan where nothing is scored), and ``arrays.{name}`` of any shape that the probe's docstring
explains. Equal measurements give equal bytes: no dates, no hosts, no durations.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hemorrhage import files
from hemorrhage.analysis.statistics import Estimate

NUMBERS = ("value", "se", "low", "high")


@dataclasses.dataclass(frozen=True)
class Metric:
    """One number with its uncertainty.

    Attributes:
        metric: its name.
        value: the estimate.
        se: standard error; nan if unknown.
        low: lower end of the 95 % interval; nan if unknown.
        high: upper end of the 95 % interval; nan if unknown.
        n: number of scored tokens (or bytes, items).
        blocks: number of resampled windows (or items).
        unit: nats, bits/byte, share, ...; empty for a pure number.
        higher_is_better: the direction of function; None if a change either way is damage.
    """

    metric: str
    value: float
    se: float
    low: float
    high: float
    n: int
    blocks: int
    unit: str = ""
    higher_is_better: bool | None = False

    @classmethod
    def of(cls, metric: str, estimate: Estimate, unit: str = "", higher_is_better: bool | None = False) -> Metric:
        """Return an estimate under a name."""
        return cls(metric, **dataclasses.asdict(estimate), unit=unit, higher_is_better=higher_is_better)


@dataclasses.dataclass(frozen=True)
class Measurement:
    """What a probe returns.

    Attributes:
        metrics: in the order in which they are to be read.
        windows: sums [B] of a metric over the scored tokens of each window; "count" [B] is how many those are.
        token_arrays: values [B, L] of a metric, nan where nothing is scored.
        arrays: anything else that a probe keeps, by block or head for instance.
        protocol: how it was measured, if the protocol of the windows does not say it.
    """

    metrics: list[Metric]
    windows: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    token_arrays: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    arrays: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    protocol: dict[str, Any] | None = None


@dataclasses.dataclass(frozen=True)
class Record:
    """A measurement with what it is of.

    Attributes:
        model: name of the model.
        variant: slug of the variant.
        probe: name of the probe.
        version: the probe's version; numbers of different versions are not compared.
        protocol: how the windows were cut and scored.
        measurement: the numbers and arrays.
    """

    model: str
    variant: str
    probe: str
    version: int
    protocol: dict[str, Any]
    measurement: Measurement

    def __getitem__(self, metric: str) -> Metric:
        """The metric of that name; raises KeyError if the record has none."""
        return {entry.metric: entry for entry in self.measurement.metrics}[metric]


def write(
    path: str | os.PathLike,
    measurement: Measurement,
    *,
    model: str,
    variant: str,
    probe: str,
    version: int,
    protocol: Mapping[str, Any],
) -> None:
    """Write ``path`` (.json) and, if the measurement has arrays, the .npz beside it; the arrays first.

    Raises ValueError if two metrics share a name.
    """
    names = [entry.metric for entry in measurement.metrics]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"{probe}: the metrics {', '.join(twice)} are reported more than once.")
    groups = {"windows": measurement.windows, "tokens": measurement.token_arrays, "arrays": measurement.arrays}
    arrays = {f"{group}.{name}": array for group, members in groups.items() for name, array in members.items()}
    if arrays:
        files.write_arrays(Path(path).with_suffix(".npz"), **arrays)
    files.write_json(
        path,
        {
            "model": model,
            "variant": variant,
            "probe": probe,
            "version": version,
            "protocol": dict(measurement.protocol or protocol),
            "metrics": [dataclasses.asdict(entry) for entry in measurement.metrics],
        },
    )


def read(path: str | os.PathLike) -> Record:
    """Read a record and its arrays. Raises ValueError naming the file if it is not a record."""
    content = files.read_json(path)
    try:
        metrics = [Metric(**{**entry, **{key: float(entry[key]) for key in NUMBERS}}) for entry in content["metrics"]]
        facts = {key: content[key] for key in ("model", "variant", "probe", "version", "protocol")}
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path}: not a record of a probe ({error}); delete it and run again.") from None
    return Record(**facts, measurement=Measurement(metrics, **_arrays(Path(path).with_suffix(".npz"))))


def read_arrays(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Return what a probe kept as ``arrays`` beside a record; ``path`` is the .npz."""
    return _arrays(Path(path))["arrays"]


def _arrays(path: Path) -> dict[str, dict[str, np.ndarray]]:
    fields = {"windows": "windows", "tokens": "token_arrays", "arrays": "arrays"}
    found: dict[str, dict[str, np.ndarray]] = {name: {} for name in fields.values()}
    if path.exists():
        with np.load(path, allow_pickle=False) as archive:
            for key in archive.files:
                group, _, name = key.partition(".")
                found[fields[group]][name] = archive[key]
    return found
