"""What the tables say, in sentences with numbers: the opening of summary and report."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from hemorrhage.analysis import mitigations, statements, tables, thresholds
from hemorrhage.analysis.curves import REFERENCE, Curve, curves, label
from hemorrhage.figures.overview import ranked
from hemorrhage.reporting import combination_findings, decoding_findings, expansion_findings, wording

UNDECIDED_KL = 0.01  # nats; above it a perplexity below the reference's is damage that perplexity does not see


def sentences(
    metrics: pd.DataFrame,
    found: pd.DataFrame,
    compared: pd.DataFrame,
    grid: dict[str, Any],
    criteria: Mapping[str, dict[str, Any]],
    judged: pd.DataFrame,
    combined: pd.DataFrame | None = None,
) -> list[str]:
    """Return the findings of a study, the most important first.

    Args:
        metrics: metrics.tsv.
        found: thresholds.tsv.
        compared: mitigations.tsv.
        grid: the study's grid.
        criteria: name -> {"metric", "at"}.
        judged: statements.tsv.
        combined: combinations.tsv, if the study has a grid of two steps.
    """
    result = []
    for panel in ranked(curves(metrics, grid), found, criteria):
        result.append(_survivor(panel, found, grid, criteria))
    result.extend(_mitigation(group, grid, criteria) for _, group in _compared(compared, criteria))
    result.extend([*_hidden(metrics, grid), *_control(metrics)])
    result.extend(decoding_findings.sentences(metrics, grid))
    result.extend(expansion_findings.sentences(metrics, grid))
    if combined is not None:
        result.extend(combination_findings.sentences(combined, grid))
    result.extend(_statements(judged))
    return [sentence for sentence in result if sentence]


def _statements(judged: pd.DataFrame) -> list[str]:
    """How many of the qualitative statements hold, and which fail."""
    found = []
    for model, rows in tables.groups(judged, "model"):
        name = f" on {model}" if judged.model.nunique() > 1 else ""
        counts = [
            f"{int((rows.verdict == word).sum())} {words}"
            for word, words in zip(statements.VERDICTS, ("hold", "fail", "are undecided"), strict=True)
        ]
        failing = "; ".join(
            f"“{row.statement}” ({row.held} of {row.comparisons} comparisons hold)"
            for row in tables.rows(rows[rows.verdict == statements.FAILS])
        )
        found.append(
            f"Of {len(rows)} statements of paper and field that this study can test{name}: {', '.join(counts)}"
            + (f"; failing: {failing}." if failing else ".")
        )
    return found


def _survivor(
    panel: list[Curve], found: pd.DataFrame, grid: dict[str, Any], criteria: Mapping[str, dict[str, Any]]
) -> str:
    """Which sweep of an axis goes farthest, and which breaks first."""
    name = wording.primary(criteria)
    rows = {
        row["sweep"]: row
        for row in tables.dicts(
            found[(found.model == panel[0].model) & (found.criterion == name) & (found.protocol == panel[0].protocol)]
        )
    }

    known = [
        curve
        for curve in panel
        if curve.sweep in rows
        and rows[curve.sweep]["state"] in (thresholds.INSIDE, thresholds.NOT_REACHED, thresholds.EXCEEDED)
    ]
    if not known:
        return ""
    axis, first, last = known[0].axis, known[0], known[-1]
    text = (
        f"{wording.axis(axis)}: within {wording.criterion(criteria[name])}, "
        f"{label(first.sweep, grid)} {_reach(rows[first.sweep], axis)}"
    )
    if _breaks_first(rows[last.sweep], rows[first.sweep], axis):
        text += f"; first to break is {label(last.sweep, grid)}, which {_reach(rows[last.sweep], axis)}"
    return _capital(text) + "."


def _breaks_first(weak: Mapping[str, Any], strong: Mapping[str, Any], axis: Mapping[str, Any]) -> bool:
    """Whether one sweep is shown to break before another: their intervals, or the levels around them, do not overlap.

    A sweep that skips a level seems to last less far than one that has it; that alone shows nothing.
    """
    sign = 1 if axis["rises"] else -1
    if not axis["integer"] and weak["state"] == strong["state"] == thresholds.INSIDE:
        ends = [sorted((sign * row["low"], sign * row["high"])) for row in (weak, strong)]
        return ends[0][1] < ends[1][0]
    return sign * weak["outside"] <= sign * strong["inside"]


def _reach(row: Mapping[str, Any], axis: Mapping[str, Any]) -> str:
    """How far a sweep goes, as the end of a sentence."""
    inside, outside = wording.level(row["inside"]), wording.level(row["outside"])
    if row["state"] == thresholds.NOT_REACHED:
        return f"goes beyond {inside}, the farthest level tested"
    if row["state"] == thresholds.EXCEEDED or (row["inside"] == axis["harmless"] and axis["integer"]):
        return f"does not last to {outside}, the mildest level tested"
    if axis["integer"]:
        return f"lasts to {inside} but not to {outside}"
    return f"lasts to {wording.threshold(row, axis)}"


def _compared(compared: pd.DataFrame, criteria: Mapping[str, dict[str, Any]]):
    rows = compared[(compared.kind == "threshold") & (compared.criterion == wording.primary(criteria))]
    return tables.groups(rows, ["model", "mitigation", "sweep", "sweep_baseline"], sort=True)


def _mitigation(rows: pd.DataFrame, grid: dict[str, Any], criteria: Mapping[str, dict[str, Any]]) -> str:
    row = tables.dicts(rows.iloc[:1])[0]
    verb = {
        mitigations.HELPS: "helps",
        mitigations.HURTS: "hurts",
        mitigations.SAME: "makes no difference that the data can show",
    }.get(row["verdict"], "is undecided")
    still = row["shift"] == row["shift_low"] == row["shift_high"] == 0
    moves = "does not move" if still else f"moves by {wording.shift(row)}"
    if math.isnan(row["shift"]) and row["shift_state"] not in ("at least", "at most"):
        moves = "cannot be compared (" + str(row["shift_state"]) + ")"
    return (
        f"Mitigation {row['mitigation'].replace('_', ' ')} {verb} against {label(row['sweep_baseline'], grid)}: "
        f"the threshold at {wording.criterion(criteria[row['criterion']])} {moves}."
    )


def _hidden(metrics: pd.DataFrame, grid: dict[str, Any]) -> list[str]:
    """Variants whose perplexity is not worse although their distribution has moved."""
    wide = pivot(metrics)
    if not {"kl", "perplexity_ratio"} <= set(wide.columns):
        return []
    hidden = wide[(wide.perplexity_ratio <= 1) & (wide.kl > UNDECIDED_KL)].sort_values("kl", ascending=False)
    if hidden.empty:
        return []
    worst = hidden.reset_index().iloc[0]
    plural = "variants have" if len(hidden) > 1 else "variant has"
    return [
        f"{len(hidden)} {plural} a perplexity no worse than the reference's at a KL above {UNDECIDED_KL:g} nat "
        f"({label(worst.variant, grid)}: ratio {wording.number(worst.perplexity_ratio)}, KL "
        f"{wording.number(worst.kl)}): perplexity alone would not see this damage."
    ]


def _control(metrics: pd.DataFrame) -> list[str]:
    """The reference through the path of every variant."""
    rows = metrics[(metrics.variant == REFERENCE) & (metrics.metric == "kl") & (metrics.probe == "fidelity")]
    if rows.empty:
        return []
    worst = float(rows.value.max())
    if worst == 0:
        return ["Control: the unmodified model, measured like every variant, has a KL of exactly 0."]
    return [
        f"Control failed: the unmodified model has a KL of {wording.number(worst)}; every number here holds only "
        "above that."
    ]


def pivot(metrics: pd.DataFrame) -> pd.DataFrame:
    """Return the fidelity values with one row per (model, variant) and one column per metric."""
    rows = metrics[metrics.probe == "fidelity"].drop_duplicates(["model", "variant", "metric"])
    return rows.pivot(index=["model", "variant"], columns="metric", values="value")


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
