"""This part gathers the records into tables and finds what they say.

REQUIRED INPUTS: variants/*/{modification,{probe}}.json, variants/*/text/*.json, reference/evaluation/reference.json
OUTPUTS: results/tables/{metrics,cuts,floors,thresholds,mitigations,statements}.tsv, windows.parquet; combinations.tsv
and protocols.tsv where a study asks for them

Everything after `collect_metrics` reads tables only.
"""


# One row per variant, metric and sweep; sums over windows and what cuts took beside it.
rule collect_metrics:
    input:
        records=get_records(),
        modifications=get_modifications(),
        sources=sources("collect_metrics.py"),
    output:
        metrics=f"{TABLES}/metrics.tsv",
        windows=f"{TABLES}/windows.parquet",
        cuts=f"{TABLES}/cuts.tsv",
    log:
        "results/logs/collect_metrics.log",
    benchmark:
        "results/benchmarks/collect_metrics.jsonl"
    conda:
        "../envs/hemorrhage.yaml"
    threads: 1
    params:
        grid=STUDY.grid(),
        software=TABLE,
    script:
        "../scripts/collect_metrics.py"


# What differs between the reference and itself.
rule collect_floors:
    input:
        references=every(f"{MODEL}/reference/evaluation/reference.json", [""]),
        sources=sources("collect_floors.py"),
    output:
        floors=f"{TABLES}/floors.tsv",
    log:
        "results/logs/collect_floors.log",
    benchmark:
        "results/benchmarks/collect_floors.jsonl"
    conda:
        "../envs/hemorrhage.yaml"
    threads: 1
    params:
        models=list(STUDY.config["models"]),
        software=TABLE,
    script:
        "../scripts/collect_floors.py"


# The reference under several protocols.
rule collect_protocols:
    input:
        records=every(f"{MODEL}/protocols.json", [""]),
        sources=sources("collect_protocols.py"),
    output:
        protocols=f"{TABLES}/protocols.tsv",
    log:
        "results/logs/collect_protocols.log",
    benchmark:
        "results/benchmarks/collect_protocols.jsonl"
    conda:
        "../envs/hemorrhage.yaml"
    threads: 1
    params:
        software=TABLE,
    script:
        "../scripts/collect_protocols.py"


# The farthest level before damage exceeds each tolerance.
rule find_thresholds:
    input:
        metrics=f"{TABLES}/metrics.tsv",
        floors=f"{TABLES}/floors.tsv",
        sources=sources("find_thresholds.py"),
    output:
        thresholds=f"{TABLES}/thresholds.tsv",
    log:
        "results/logs/find_thresholds.log",
    benchmark:
        "results/benchmarks/find_thresholds.jsonl"
    conda:
        "../envs/hemorrhage.yaml"
    threads: 1
    params:
        grid=STUDY.grid(),
        criteria=STUDY.config["thresholds"]["criteria"],
        software=TABLE,
    script:
        "../scripts/find_thresholds.py"


# Whether each mitigation helps: the shift of the threshold and the difference at equal level, paired.
rule compare_mitigations:
    input:
        metrics=f"{TABLES}/metrics.tsv",
        windows=f"{TABLES}/windows.parquet",
        floors=f"{TABLES}/floors.tsv",
        sources=sources("compare_mitigations.py"),
    output:
        mitigations=f"{TABLES}/mitigations.tsv",
    log:
        "results/logs/compare_mitigations.log",
    benchmark:
        "results/benchmarks/compare_mitigations.jsonl"
    conda:
        "../envs/hemorrhage.yaml"
    threads: 1
    params:
        grid=STUDY.grid(),
        criteria=STUDY.config["thresholds"]["criteria"],
        software=TABLE,
    script:
        "../scripts/compare_mitigations.py"


# Two steps together against the sum of each alone, paired; made where a study has a grid of two steps.
rule compare_combinations:
    input:
        windows=f"{TABLES}/windows.parquet",
        sources=sources("compare_combinations.py"),
    output:
        combinations=f"{TABLES}/combinations.tsv",
    log:
        "results/logs/compare_combinations.log",
    benchmark:
        "results/benchmarks/compare_combinations.jsonl"
    conda:
        "../envs/hemorrhage.yaml"
    threads: 1
    params:
        grid=STUDY.grid(),
        software=TABLE,
    script:
        "../scripts/compare_combinations.py"


# The qualitative statements of paper and field, tested on this study.
rule judge_statements:
    input:
        metrics=f"{TABLES}/metrics.tsv",
        windows=f"{TABLES}/windows.parquet",
        cuts=f"{TABLES}/cuts.tsv",
        sources=sources("judge_statements.py"),
    output:
        statements=f"{TABLES}/statements.tsv",
    log:
        "results/logs/judge_statements.log",
    benchmark:
        "results/benchmarks/judge_statements.jsonl"
    conda:
        "../envs/hemorrhage.yaml"
    threads: 1
    params:
        grid=STUDY.grid(),
        software=TABLE,
    script:
        "../scripts/judge_statements.py"
