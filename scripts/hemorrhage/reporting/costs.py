"""What a study cost: wall time and peak memory by rule, from Snakemake's benchmark files.

Times are no part of the results: they differ from run to run, so they never stand in a table that is compared.
"""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd


def read(folder: str | Path) -> pd.DataFrame:
    """Return one row per job: rule, job, seconds, cpu_seconds, peak_mb.

    Raises ValueError if there is no benchmark file.
    """
    rows = []
    for path in sorted(Path(folder).rglob("*.jsonl")):
        # A job that ran again has one file; its last line is the last run.
        line = json.loads(path.read_text(encoding="utf8").splitlines()[-1])
        place = path.relative_to(folder).with_suffix("")
        rows.append(
            {
                "rule": place.parts[0],
                "job": "/".join(place.parts[1:]),
                "seconds": _number(line["s"]),
                "cpu_seconds": _number(line.get("cpu_time")),
                "peak_mb": _number(line.get("max_rss")),
            }
        )
    if not rows:
        raise ValueError(f"{folder}: no benchmark file; run the study first.")
    return pd.DataFrame(rows)


def by_rule(costs: pd.DataFrame) -> pd.DataFrame:
    """Return per rule: jobs, seconds in all, median seconds of a job, highest peak memory in MB."""
    groups = costs.groupby("rule", sort=True)
    return pd.DataFrame(
        {
            "jobs": groups.size(),
            "seconds": groups["seconds"].sum(),
            "median": groups["seconds"].median(),
            "peak_mb": groups["peak_mb"].max(),
        }
    ).reset_index()


def markdown(costs: pd.DataFrame) -> str:
    """Return the table by rule as Markdown, with the sum in the last row."""
    lines = ["| rule | jobs | core-seconds | a job (median) | peak memory of one job |", "|---|---:|---:|---:|---:|"]
    for row in by_rule(costs).to_dict("records"):
        lines.append(
            f"| {row['rule']} | {row['jobs']} | {row['seconds']:.0f} | {row['median']:.1f} s | "
            f"{row['peak_mb'] / 1000:.2f} GB |"
        )
    lines.append(f"| all | {len(costs)} | {costs.seconds.sum():.0f} | | {costs.peak_mb.max() / 1000:.2f} GB |")
    return "\n".join(lines)


def _number(value: object) -> float:
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return 0.0
