"""The tables of summary and report: rows of text cells, rounded for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from hemorrhage.analysis import tables
from hemorrhage.analysis.curves import REFERENCE, label
from hemorrhage.analysis.statistics import paired_unpaired_ratio
from hemorrhage.figures.decoding import decoder_label, ranking, text_rows
from hemorrhage.reporting import wording


@dataclass(frozen=True)
class Table:
    """A table for people.

    Attributes:
        head: column headings.
        rows: cells; one that is a (text, kind) pair is shown as a coloured word of that kind.
        text: number of leading columns that hold words, set flush left.
    """

    head: list[str]
    rows: list[list[Any]] = field(default_factory=list)
    text: int = 1


def families(metrics: pd.DataFrame) -> list[str]:
    """Return the families with a modification, in the order of the table."""
    rows = metrics[(metrics.probe == "fidelity") & (metrics.family != "control")]
    return list(dict.fromkeys(rows.family))


def title(family: str) -> str:
    """Return how people read the name of a family."""
    return family.replace("_", " ").capitalize()


def variants(metrics: pd.DataFrame, family: str, grid: dict[str, Any], severity: Sequence[Sequence[Any]]) -> Table:
    """Return KL, perplexity ratio, agreement and severity of every variant of a family, by sweep, mildest first."""
    rows = metrics[(metrics.probe == "fidelity") & (metrics.family == family)]
    mildest_first = rows[rows.metric == "kl"].sort_values(["model", "sweep", "value"], kind="stable")
    order = {
        key: place
        for place, key in enumerate(dict.fromkeys(zip(mildest_first.model, mildest_first.variant, strict=True)))
    }
    shown = rows.drop_duplicates(["model", "variant", "metric"])
    several = rows.model.nunique() > 1
    head = [
        *(["model"] if several else []),
        "variant",
        "KL, nats",
        "95 %",
        "perplexity ÷ reference",
        "95 %",
        "top-1 agreement",
        "severity",
    ]
    table = Table(head, text=1 + several)
    for (model, variant), group in sorted(
        tables.groups(shown, ["model", "variant"]), key=lambda entry: order.get(entry[0], len(order))
    ):
        cells = {row["metric"]: row for row in tables.dicts(group)}
        line: list[Any] = [*([model] if several else []), label(variant, grid)]
        for metric in ("kl", "perplexity_ratio"):
            cell = cells.get(metric)
            line += [wording.number(cell["value"]), wording.interval(cell["low"], cell["high"])] if cell else ["", ""]
        agreement, ratio = cells.get("top1_agreement"), cells.get("perplexity_ratio")
        line.append(f"{100 * agreement['value']:.1f} %" if agreement else "")
        word = wording.severity(ratio["value"], severity) if ratio else ""
        line.append((word, f"severity-{_rank(word, severity)}"))
        table.rows.append(line)
    return table


def thresholds(found: pd.DataFrame, family: str, grid: dict[str, Any], criteria: Mapping[str, dict[str, Any]]) -> Table:
    """Return the thresholds of a family: a row per sweep, a column per criterion."""
    rows = found[found.family == family]
    several = rows.model.nunique() > 1
    head = [*(["model"] if several else []), "sweep", "axis", *map(wording.criterion, criteria.values()), "levels"]
    table = Table(head, text=2 + several)
    for (model, sweep, _), group in tables.groups(rows, ["model", "sweep", "protocol"], sort=False):
        cells = {row["criterion"]: row for row in tables.dicts(group)}
        method = group.method.iloc[0]
        axis = grid["axes"][method]
        reach = [
            wording.threshold(cells[name], axis) + ("" if cells[name]["monotone"] == "True" else " *")
            if name in cells
            else ""
            for name in criteria
        ]
        table.rows.append(
            [*([model] if several else []), label(sweep, grid), wording.axis(axis), *reach, str(group.levels.iloc[0])]
        )
    return table


def statements(judged: pd.DataFrame) -> Table:
    """Return what became of every qualitative statement that the study can test."""
    several = judged.model.nunique() > 1
    head = [*(["model"] if several else []), "statement", "verdict", "comparisons that hold", "those that do not"]
    rows = [
        [
            *([row["model"]] if several else []),
            row["statement"],
            _verdict(row["verdict"]),
            f"{row['held']} of {row['comparisons']}",
            _first(row["against"]),
        ]
        for row in tables.dicts(judged)
    ]
    return Table(head, rows, text=len(head))


def shifts(compared: pd.DataFrame, grid: dict[str, Any], criteria: Mapping[str, dict[str, Any]]) -> Table:
    """Return how far each mitigation moves each threshold."""
    table = Table(["mitigated", "baseline", "criterion", "threshold before", "after", "shift, 95 %", "verdict"], text=3)
    for row in tables.dicts(compared[compared.kind == "threshold"]):
        table.rows.append(
            [
                label(row["sweep"], grid),
                label(row["sweep_baseline"], grid),
                wording.criterion(criteria[row["criterion"]]),
                wording.number(row["threshold_baseline"]),
                wording.number(row["threshold_mitigated"]),
                wording.shift(row),
                _verdict(row["verdict"]),
            ]
        )
    return table


def differences(compared: pd.DataFrame, grid: dict[str, Any], metric: str = "kl") -> Table:
    """Return the paired difference of a metric at every level that mitigated and baseline sweep share."""
    table = Table(
        ["mitigated", "against", "level", "KL before", "after", "difference", "95 %, paired", "verdict"], text=2
    )
    for row in tables.dicts(compared[(compared.kind == "level") & (compared.criterion == metric)]):
        against = label(row["sweep_baseline"], grid) if row["sweep_baseline"] else "the same without it"
        table.rows.append(
            [
                label(row["sweep"], grid),
                against,
                f"{float(row['level']):g}",
                wording.number(row["value_baseline"]),
                wording.number(row["value_mitigated"]),
                wording.signed(row["difference"], 3),
                wording.interval(row["difference_low"], row["difference_high"]),
                _verdict(row["verdict"]),
            ]
        )
    return table


def decoding(metrics: pd.DataFrame, grid: dict[str, Any]) -> Table:
    """Return the effects of weights and of decoder on text, a row per variant and decoder."""
    text = text_rows(metrics)
    several = text.model.nunique() > 1
    table = Table(
        [
            *(["model"] if several else []),
            "variant",
            "decoder",
            "weights: agreement",
            "weights: first difference",
            "decoder: agreement",
            "decoder: first difference",
        ],
        text=2 + several,
    )
    for model, group in tables.groups(text, "model", sort=True):
        values = {(row.variant, row.decoder, row.metric): row.value for row in tables.rows(group)}
        for variant in ranking(group):
            for decoder in sorted(group.decoder.unique()):
                cells = [
                    values.get((variant, decoder, f"{effect}.{measure}"), float("nan"))
                    for effect in ("weight_effect", "decoder_effect")
                    for measure in ("token_agreement", "first_divergence")
                ]
                names = [*([model] if several else []), label(variant, grid), decoder_label(decoder)]
                table.rows.append([*names, *map(wording.number, cells)])
    return table


def texts(table: pd.DataFrame, metrics: pd.DataFrame, grid: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the texts of the first prompt and seed side by side, by model and decoder, most faithful variants first.

    An entry has model (empty if there is only one), decoder, variant, failure, prompt, shared, reference and text; the
    counts of the failures of all its prompts and seeds stand under ``counts``.

    Args:
        table: texts.tsv.
        metrics: metrics.tsv, which says how faithful a variant is.
        grid: the study's grid.
    """
    found, several = [], table.model.nunique() > 1
    order = {
        model: {variant: place for place, variant in enumerate(ranking(group))}
        for model, group in tables.groups(text_rows(metrics), "model")
    }
    groups = sorted(
        tables.groups(table, ["model", "decoder", "variant"]),
        key=lambda entry: (*entry[0][:2], order[entry[0][0]][entry[0][2]]),
    )
    for (model, decoder, variant), group in groups:
        first = tables.dicts(group.head(1))[0]
        counts = group.failure.value_counts().sort_index()
        found.append(
            {
                **first,
                "model": model if several else "",
                "decoder": decoder_label(decoder),
                "variant": label(variant, grid),
                "counts": ", ".join(f"{count} × {word}" for word, count in counts.items()),
            }
        )
    return found


def floors(table: pd.DataFrame) -> Table:
    """Return the floors of the instrument."""
    return Table(
        ["model", "floor", "metric", "value"],
        [
            [row.model, row.floor, row.metric, "exactly 0" if row.value == 0 else wording.number(row.value)]
            for row in tables.rows(table)
        ],
        text=3,
    )


def pairing(metrics: pd.DataFrame) -> Table:
    """Return, per model, the paired over the unpaired standard error of ΔNLL: what the shared windows are worth.

    Unpaired is what two independent sets of windows would give, the root of the sum of both squared errors of NLL.
    """
    table = Table(["model", "variants", "median", "least", "largest"])
    wide = metrics[metrics.probe == "fidelity"].drop_duplicates(["model", "variant", "protocol", "metric"])
    errors = wide.pivot(index=["model", "protocol", "variant"], columns="metric", values="se")
    if not {"nll", "delta_nll"} <= set(errors.columns):
        return table
    for (model, _), group in tables.groups(errors, ["model", "protocol"]):
        own = group[group.index.get_level_values("variant") == REFERENCE].nll
        others = group[group.index.get_level_values("variant") != REFERENCE]
        if own.empty:
            continue
        ratios = pd.Series(
            [
                paired_unpaired_ratio(*pair, float(own.iloc[0]))
                for pair in zip(others.delta_nll, others.nll, strict=True)
            ],
            dtype=float,
        ).dropna()
        if len(ratios):
            numbers = (ratios.median(), ratios.min(), ratios.max())
            table.rows.append([str(model), str(len(ratios)), *map(wording.number, numbers)])
    return table


def _first(listed: str, most: int = 4) -> str:
    """The first entries of a list in words, and how many more there are."""
    entries = listed.split("; ") if listed else []
    more = f"; and {len(entries) - most} more" if len(entries) > most else ""
    return "; ".join(entries[:most]) + more


def _verdict(word: str) -> tuple[str, str]:
    return word, "verdict-" + word.replace(" ", "-")


def _rank(word: str, severity: Sequence[Sequence[Any]]) -> int:
    names = [name for name, _ in wording.scale(severity)]
    return names.index(word) if word in names else 0
