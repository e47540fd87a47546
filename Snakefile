"""Hemorrhage: how far a language model can be modified before it breaks.

`snakemake --cores all` goes from nothing to results/report.html. The rules follow the flow of the data; what they
ask of the config is answered in rules/common.smk.
"""

from snakemake.utils import min_version

min_version("9.19")


configfile: "config.yaml"


include: "rules/common.smk"
include: "rules/prepare.smk"
include: "rules/reference.smk"
include: "rules/modify.smk"
include: "rules/measure.smk"
include: "rules/decode.smk"
include: "rules/tables.smk"
include: "rules/report.smk"
include: "rules/speed.smk"


wildcard_constraints:
    model="|".join(map(re.escape, STUDY.config["models"])),
    variant=r"[A-Za-z0-9_.~+-]+",
    decoder=r"[A-Za-z0-9_.~+-]+",


localrules:
    all,
    figures,
    tables,


# Everything, and the report last.
rule all:
    default_target: True
    input:
        "results/report.html",
        "results/summary.md",
        rules.collect_metrics.input.records,
        FIGURES,
        SPEED,


# The tables without figures and report.
rule tables:
    input:
        "results/tables/metrics.tsv",
        "results/tables/thresholds.tsv",
        "results/tables/mitigations.tsv",


# The figures and what they are drawn from.
rule figures:
    input:
        FIGURES,
