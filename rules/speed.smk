"""This part times variants, if the config asks for it: `speed: {variants: ["flap*"]}`.

REQUIRED INPUTS: variants/{variant}/modification.json, tokens/evaluation.npz
OUTPUTS: results/benchmarks/speed/{model}/{variant}.json, results/benchmarks/speed.tsv

Times are not reproducible, so they lie with the benchmarks and nothing else reads them.
"""

SPEED = (
    ["results/benchmarks/speed.tsv"]
    if STUDY.config.get("speed", {}).get("variants")
    else []
)


# It takes all cores, however many, so that nothing runs beside it: Snakemake gives a job what there is.
rule measure_speed:
    input:
        modification=f"{VARIANT}/modification.json",
        tokens=f"{MODEL}/tokens/evaluation.npz",
        data=get_modification_data,
        sources=sources("measure_speed.py"),
    output:
        record="results/benchmarks/speed/{model}/{variant}.json",
    log:
        "results/logs/measure_speed/{model}/{variant}.log",
    benchmark:
        "results/benchmarks/measure_speed/{model}/{variant}.jsonl"
    priority: 10
    conda:
        "../envs/hemorrhage.yaml"
    threads: 512
    resources:
        mem_mb=get_memory_mb,
        gpu=GPU,
    params:
        speed={
            key: value
            for key, value in STUDY.config.get("speed", {}).items()
            if key != "variants"
        },
        given={
            "dtype": STUDY.config["dtype"],
            "seed": STUDY.config["seed"],
            "chunk": STUDY.config["chunk"],
        },
        trust=lambda wildcards: STUDY.trusted(wildcards.model),
        software=TORCH,
    script:
        "../scripts/measure_speed.py"


rule collect_speed:
    input:
        records=every(
            "results/benchmarks/speed/{model}/{variant}.json", STUDY.chosen("speed")
        ),
        sources=sources("collect_speed.py"),
    output:
        table="results/benchmarks/speed.tsv",
    log:
        "results/logs/collect_speed.log",
    benchmark:
        "results/benchmarks/collect_speed.jsonl"
    conda:
        "../envs/hemorrhage.yaml"
    threads: 1
    params:
        software=TABLE,
    script:
        "../scripts/collect_speed.py"
