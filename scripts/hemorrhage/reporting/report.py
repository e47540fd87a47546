"""The report: one HTML file without any outside resource, rendered from tables and figures."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from hemorrhage import files, plugins
from hemorrhage.analysis import combinations, statements, tables
from hemorrhage.analysis.curves import REFERENCE
from hemorrhage.reporting import findings, plotting, sections, wording

PLACED = ("overview", "mitigations", "decoding")  # the template knows where
ELSEWHERE = "More figures"
THEME = {
    plotting.INK: "var(--ink)",
    plotting.MUTED: "var(--muted)",
    plotting.GRID: "var(--grid)",
    plotting.PAPER: "var(--paper)",
}


def write(
    paths: Mapping[str, str],
    figures: Mapping[str, str],
    grid: dict[str, Any],
    settings: Mapping[str, Any],
    notes: Sequence[str],
    template: str,
    out: str,
    descriptions: Mapping[str, str] | None = None,
) -> None:
    """Write report.html.

    Args:
        paths: the tables by name: metrics, thresholds, mitigations, floors, statements; texts if any were generated,
            combinations if the study has some.
        figures: stem -> SVG file; overview, family_{family}, mitigations, decoding, and those of probes.
        grid: the study's grid.
        settings: criteria and severity.
        notes: what a reader must know of this study, a sentence each.
        template: the Jinja2 template; report.css lies beside it.
        out: where to write.
        descriptions: method -> what it does, one sentence.
    """
    read = {name: tables.read(paths[name]) for name in ("metrics", "thresholds", "mitigations", "floors")}
    read["statements"] = statements.read(paths["statements"])
    read |= {"combinations": combinations.read(paths["combinations"])} if "combinations" in paths else {}
    folder = Path(template).parent
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
    drawn = {
        stem: jinja2.filters.Markup(inline(Path(path).read_text(encoding="utf8"), stem))
        for stem, path in sorted(figures.items())
    }
    style = jinja2.filters.Markup((folder / "report.css").read_text(encoding="utf8"))
    content = _content(read, grid, settings, drawn, descriptions or {})
    texts = tables.read(paths["texts"]) if "texts" in paths else None
    content["texts"] = [] if texts is None else sections.texts(texts, read["metrics"], grid)
    page = environment.get_template(Path(template).name)
    files.write_text(out, page.render(style=style, figures=drawn, notes=list(notes), **content))


def inline(svg: str, prefix: str) -> str:
    """Return an SVG file as an element: ids of its own, the reader's colours, as wide as the page allows."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\bid="', f'id="{prefix}-', svg)
    svg = svg.replace("url(#", f"url(#{prefix}-").replace('href="#', f'href="#{prefix}-')
    for colour, variable in THEME.items():
        svg = svg.replace(colour, variable)
    width = re.search(r'\bwidth="([\d.]+)pt"', svg)
    size = f'style="max-width:{float(width.group(1)) * 1.5:.0f}px" role="img"' if width else 'role="img"'
    return re.sub(r'\bwidth="[\d.]+pt"', size, re.sub(r' height="[\d.]+pt"', "", svg, count=1), count=1).strip()


def _content(
    read: Mapping[str, pd.DataFrame],
    grid: dict[str, Any],
    settings: Mapping[str, Any],
    drawn: Mapping[str, str],
    descriptions: Mapping[str, str],
) -> dict[str, Any]:
    """Everything the template shows."""
    metrics, found, compared = read["metrics"], read["thresholds"], read["mitigations"]
    criteria, severity = settings["criteria"], settings["severity"]
    names = sections.families(metrics)
    return {
        "models": sorted(metrics.model.unique()),
        "facts": _facts(metrics, found),
        "findings": findings.sentences(
            metrics, found, compared, grid, criteria, read["statements"], read.get("combinations")
        ),
        "families": [
            {
                "name": name,
                "title": sections.title(name),
                "figure": drawn.get(f"family_{name}"),
                "methods": _methods(metrics, name, descriptions),
                "thresholds": sections.thresholds(found, name, grid, criteria),
                "variants": sections.variants(metrics, name, grid, severity),
            }
            for name in names
        ],
        "probes": _probes(drawn),
        "statements": sections.statements(read["statements"]),
        "shifts": sections.shifts(compared, grid, criteria),
        "differences": sections.differences(compared, grid),
        "decoding": sections.decoding(metrics, grid),
        "floors": sections.floors(read["floors"]),
        "pairing": sections.pairing(metrics),
        "severity": [
            (word, f"up to +{100 * largest:g} %" if largest != float("inf") else "beyond")
            for word, largest in wording.scale(severity)
        ],
        "criteria": [wording.criterion(criterion) for criterion in criteria.values()],
        "primary": wording.criterion(criteria[wording.primary(criteria)]),
        "protocols": sorted(metrics[metrics.probe == "fidelity"].protocol.unique()),
    }


def _probes(drawn: Mapping[str, str]) -> list[dict[str, Any]]:
    """The figures that have no place of their own: (figure, caption) under the heading that each names."""
    found: dict[str, list[tuple[str, str]]] = {}
    for stem in sorted(drawn):
        if stem not in PLACED and not stem.startswith("family_"):
            module = plugins.get("figures", stem).module
            shown = drawn[stem], str(getattr(module, "CAPTION", ""))
            found.setdefault(str(getattr(module, "SECTION", ELSEWHERE)), []).append(shown)
    return [
        {"heading": heading, "id": re.sub(r"\W+", "-", heading.lower()), "figures": shown}
        for heading, shown in found.items()
    ]


def _methods(metrics: pd.DataFrame, family: str, descriptions: Mapping[str, str]) -> list[tuple[str, str]]:
    """The methods of a family with their descriptions, as far as there are any."""
    used = {method for text in metrics[metrics.family == family].method for method in text.split("+")}
    return [(method.replace("_", " "), descriptions[method]) for method in sorted(used) if descriptions.get(method)]


def _facts(metrics: pd.DataFrame, found: pd.DataFrame) -> list[tuple[str, str]]:
    """The numbers of the header: (value, what it is)."""
    fidelity = metrics[metrics.probe == "fidelity"]
    facts = []
    for row in tables.dicts(fidelity[(fidelity.variant == REFERENCE) & (fidelity.metric == "perplexity")]):
        owner = f" of {row['model']}" if fidelity.model.nunique() > 1 else ""
        facts.append((wording.number(row["value"]), f"reference perplexity{owner}"))
    tokens = fidelity[(fidelity.metric == "kl") & fidelity.n.notna()]
    return [
        *facts,
        (str(fidelity.variant.nunique()), "variants"),
        (str(found.sweep.nunique()), "sweeps"),
        (f"{int(tokens.n.max()):,}".replace(",", " ") if len(tokens) else "0", "scored tokens each"),
        (str(int(tokens.blocks.max())) if len(tokens) else "0", "windows, resampled as blocks"),
    ]
