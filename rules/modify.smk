"""This part makes the variants.

REQUIRED INPUTS: base/, and what the steps ask for (tokens/, gradients/, reference/fit/)
OUTPUTS: variants/{variant}/modification.json; exports/{model}/{variant}/ on request.

A variant is its recipe: its checkpoint lies in a cache and is not an output, so a new probe re-runs only that probe.
"""


# Follow a variant's recipe, fill the cache, and record what was achieved.
rule modify_model:
    input:
        base=f"{MODEL}/base/hemorrhage.json",
        checked=f"{MODEL}/checked.json",
        data=get_modification_data,
        sources=get_modification_sources,
    output:
        modification=ensure(f"{VARIANT}/modification.json", non_empty=True),
    log:
        "results/logs/modify_model/{model}/{variant}.log",
    benchmark:
        "results/benchmarks/modify_model/{model}/{variant}.jsonl"
    conda:
        "../envs/hemorrhage.yaml"
    threads: 1
    resources:
        mem_mb=get_memory_mb,
        gpu=GPU,
    params:
        recipe=lambda wildcards: get_variant(wildcards).recipe,
        given={
            "dtype": STUDY.config["dtype"],
            "seed": STUDY.config["seed"],
            "chunk": STUDY.config["chunk"],
        },
        trust=lambda wildcards: STUDY.trusted(wildcards.model),
        software=get_modification_software,
    script:
        "../scripts/modify_model.py"


# Keep one variant as a checkpoint that plain transformers loads: snakemake export --config variant=<slug>
rule export_variant:
    input:
        modification=f"{VARIANT}/modification.json",
        fidelity=f"{VARIANT}/fidelity.json",
        data=get_modification_data,
        sources=sources("export_variant.py"),
        methods=get_modification_sources,
    output:
        folder=directory("results/exports/{model}/{variant}"),
    log:
        "results/logs/export_variant/{model}/{variant}.log",
    benchmark:
        "results/benchmarks/export_variant/{model}/{variant}.jsonl"
    priority: 10
    conda:
        "../envs/hemorrhage.yaml"
    threads: 1
    resources:
        mem_mb=get_memory_mb,
        gpu=GPU,
    params:
        given={
            "dtype": STUDY.config["dtype"],
            "seed": STUDY.config["seed"],
            "chunk": STUDY.config["chunk"],
        },
        severity=STUDY.config["thresholds"]["severity"],
        trust=lambda wildcards: STUDY.trusted(wildcards.model),
        software=get_modification_software,
    script:
        "../scripts/export_variant.py"


rule export:
    input:
        every("results/exports/{model}/{variant}", STUDY.exported()),
