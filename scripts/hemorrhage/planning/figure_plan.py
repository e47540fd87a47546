"""The figures of a study, and the tables that only one of them reads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hemorrhage import plugins
from hemorrhage.planning import combinations

if TYPE_CHECKING:
    from hemorrhage.planning.study import Study

DECODING = ("decoding", "divergence", "amplification", "published_decoding")
OWN_TABLES = {
    "divergence": ["divergence.tsv"],
    "protocols": ["protocols.tsv"],
    "surface": ["combinations.tsv"],
    "calibration": ["windows.parquet"],
    "patterns": ["windows.parquet"],
}
PUBLISHED = {"published_decoding": ["resources/published/paper_decoding.tsv"]}


def figures(study: Study) -> dict[str, dict[str, str]]:
    """The figures of this study: file stem -> name of the plug-in and, for a family's figure, the family.

    A family has a figure if one of its variants walks an axis.
    """
    families = dict.fromkeys(variant.family for variant in study.variants if variant.sweeps())
    found = {"overview": {"name": "overview"}}
    found |= {f"family_{family}": {"name": "family", "family": family} for family in families}
    if any(step.plugin.module.REPAIRS for variant in study.variants for step in variant.steps):
        found["mitigations"] = {"name": "mitigations"}
    if combinations.found(study.grid()):
        found["surface"] = {"name": "surface"}
    single = [dict(variant.steps[0].settings) for variant in study.variants if len(variant.steps) == 1]
    if len({settings["calibration"] for settings in single if "calibration" in settings}) > 1:
        found["calibration"] = {"name": "calibration"}
    if any(settings.get("pattern") for settings in single):
        found["patterns"] = {"name": "patterns"}
    if study.chosen("decoding"):
        found |= {name: {"name": name} for name in DECODING}
    drawn = plugins.found("figures")  # a probe may have a figure of its own, under its name
    found |= {probe: {"name": probe} for probe in study.config["probes"] if probe in drawn}
    if "attention" in study.config["probes"]:
        found["disruption"] = {"name": "disruption"}
    if study.tokens.protocol_plans():
        found["protocols"] = {"name": "protocols", "own": study.tokens.protocol.slug}
    return found


def own_tables(figure: str) -> list[str]:
    """The files of tables that only one figure reads."""
    return OWN_TABLES.get(figure, [])


def published_tables(figure: str) -> list[str]:
    """The files of published numbers that a figure reads."""
    return PUBLISHED.get(figure, [])
