"""This part measures the variants, one rule for each probe.

REQUIRED INPUTS: variants/{variant}/modification.json, reference/evaluation/, tokens/evaluation.npz; for some probes
what they recorded of the reference (variants/identity/{probe}.npz), and the token sets of which they take no article
OUTPUTS: variants/{variant}/{probe}.json and {probe}.npz
"""

for probe in STUDY.config["probes"]:

    rule:
        name:
            f"measure_{probe}"
        input:
            modification=f"{VARIANT}/modification.json",
            reference=f"{MODEL}/reference/evaluation/reference.json",
            hidden=f"{MODEL}/reference/evaluation/hidden.npy",
            tokens=f"{MODEL}/tokens/evaluation.npz",
            data=get_modification_data,
            baseline=baseline_of(probe),
            seen=STUDY.seen_by_modifications(probe, f"{MODEL}/tokens"),
            sources=get_probe_sources(probe),
        output:
            record=ensure(f"{VARIANT}/{probe}.json", non_empty=True),
            arrays=ensure(f"{VARIANT}/{probe}.npz", non_empty=True),
        log:
            f"results/logs/measure_{probe}/{{model}}/{{variant}}.log",
        benchmark:
            f"results/benchmarks/measure_{probe}/{{model}}/{{variant}}.jsonl"
        # Readers of a checkpoint before its makers, or the scheduler builds far ahead and the cache evicts.
        priority: 10
        conda:
            "../envs/hemorrhage.yaml"
        threads: 1
        resources:
            mem_mb=get_memory_mb,
            gpu=GPU,
        params:
            probe=STUDY.probe(probe),
            given={
                "dtype": STUDY.config["dtype"],
                "seed": STUDY.config["seed"],
                "chunk": STUDY.config["chunk"],
            },
            trust=lambda wildcards: STUDY.trusted(wildcards.model),
            batch=STUDY.config["batch"],
            software=TORCH | software(*STUDY.probe_packages(probe)),
        script:
            "../scripts/measure_probe.py"
