"""The summary: findings and thresholds on one page of Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hemorrhage import files
from hemorrhage.analysis import combinations, statements, tables
from hemorrhage.reporting import findings, sections


def write(
    paths: Mapping[str, str], grid: dict[str, Any], settings: Mapping[str, Any], notes: Sequence[str], out: str
) -> None:
    """Write summary.md.

    Args:
        paths: the tables by name: metrics, thresholds, mitigations, statements; combinations if the study has some.
        grid: the study's grid.
        settings: criteria and severity.
        notes: what a reader must know of this study, a sentence each.
        out: where to write.
    """
    metrics, found, compared = (tables.read(paths[name]) for name in ("metrics", "thresholds", "mitigations"))
    combined = combinations.read(paths["combinations"]) if "combinations" in paths else None
    judged = statements.read(paths["statements"])
    told = findings.sentences(metrics, found, compared, grid, settings["criteria"], judged, combined)
    parts = ["# Summary", "## Findings", _list(told)]
    for family in sections.families(metrics):
        parts += [
            f"## {sections.title(family)}",
            markdown(sections.thresholds(found, family, grid, settings["criteria"])),
            markdown(sections.variants(metrics, family, grid, settings["severity"])),
        ]
    parts += [
        "## Mitigations",
        markdown(sections.shifts(compared, grid, settings["criteria"])),
        "## Decoding",
        markdown(sections.decoding(metrics, grid)),
        "## Notes",
        _list(notes),
    ]
    files.write_text(out, "\n\n".join(part for part in parts if part) + "\n")


def markdown(table: sections.Table) -> str:
    """Return a table in Markdown; a line that says so if it has no rows."""
    if not table.rows:
        return "*Nothing of this kind in the study.*"
    lines = [
        table.head,
        ["---"] * table.text + ["--:"] * (len(table.head) - table.text),
        *([cell[0] if isinstance(cell, tuple) else cell for cell in row] for row in table.rows),
    ]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


def _list(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)
