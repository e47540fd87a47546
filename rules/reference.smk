"""This part measures the unmodified model once, so that no variant has to.

REQUIRED INPUTS: base/, tokens/{set}.npz
OUTPUTS: reference/{set}/ (hidden states, losses, floors), gradients/{set}.{norm}.safetensors, protocols.json
"""


# Run the reference over a token set: per-token loss and the input of its output embedding.
rule measure_reference:
    input:
        base=f"{MODEL}/base/hemorrhage.json",
        tokens=f"{MODEL}/tokens/{{set}}.npz",
        sources=sources("measure_reference.py"),
    output:
        record=ensure(f"{MODEL}/reference/{{set}}/reference.json", non_empty=True),
        hidden=f"{MODEL}/reference/{{set}}/hidden.npy",
        nll=f"{MODEL}/reference/{{set}}/nll.npz",
    log:
        "results/logs/measure_reference/{model}.{set}.log",
    benchmark:
        "results/benchmarks/measure_reference/{model}.{set}.jsonl"
    priority: 20
    conda:
        "../envs/hemorrhage.yaml"
    threads: 1
    resources:
        mem_mb=get_memory_mb,
        gpu=GPU,
    params:
        dtype=STUDY.config["dtype"],
        batch=STUDY.config["batch"],
        software=TORCH,
    script:
        "../scripts/measure_reference.py"


# How much the model's perplexity moves with the protocol alone.
rule measure_protocols:
    input:
        base=f"{MODEL}/base/hemorrhage.json",
        sources=sources("measure_protocols.py", "sources", fetch.kinds()),
    output:
        record=ensure(f"{MODEL}/protocols.json", non_empty=True),
    log:
        "results/logs/measure_protocols/{model}.log",
    benchmark:
        "results/benchmarks/measure_protocols/{model}.jsonl"
    conda:
        "../envs/hemorrhage.yaml"
    threads: 1
    resources:
        mem_mb=get_memory_mb,
        gpu=GPU,
    params:
        plans=STUDY.tokens.protocol_plans(),
        text=STUDY.config["texts"][STUDY.config["tokens"]["evaluation"]["text"]],
        tokens_at_once=STUDY.config["batch"] * STUDY.tokens.protocol.length,
        seed=STUDY.config["seed"],
        software=TORCH,
    script:
        "../scripts/measure_protocols.py"


# Sum the magnitudes of the gradients over a calibration set, once for all methods that use them.
rule collect_gradients:
    input:
        base=f"{MODEL}/base/hemorrhage.json",
        tokens=f"{MODEL}/tokens/{{set}}.npz",
        sources=sources("collect_gradients.py"),
    output:
        gradients=ensure(
            f"{MODEL}/gradients/{{set}}.{{norm}}.safetensors", non_empty=True
        ),
    log:
        "results/logs/collect_gradients/{model}.{set}.{norm}.log",
    benchmark:
        "results/benchmarks/collect_gradients/{model}.{set}.{norm}.jsonl"
    wildcard_constraints:
        norm="l1|l2",
    conda:
        "../envs/hemorrhage.yaml"
    threads: 1
    resources:
        mem_mb=get_memory_mb,
        gpu=GPU,
    params:
        dtype=STUDY.config["dtype"],
        software=TORCH,
    script:
        "../scripts/collect_gradients.py"
