"""This part generates text with reference and variants and measures where it departs.

REQUIRED INPUTS: variants/{variant}/modification.json, tokens/evaluation.npz
OUTPUTS: variants/{variant}/text/{decoder}.jsonl and {decoder}.json
"""


# Generate text with one decoder; the noise is keyed by prompt, step and token, the same for every variant.
rule generate_text:
    input:
        modification=f"{VARIANT}/modification.json",
        tokens=f"{MODEL}/tokens/evaluation.npz",
        data=get_modification_data,
        prompts=STUDY.prompt_files(),
        sources=lambda wildcards: sources(
            "generate_text.py", "decoders", [STUDY.decoder(wildcards.decoder).method]
        ),
    output:
        text=ensure(f"{VARIANT}/text/{{decoder}}.jsonl", non_empty=True),
    log:
        "results/logs/generate_text/{model}/{variant}/{decoder}.log",
    benchmark:
        "results/benchmarks/generate_text/{model}/{variant}/{decoder}.jsonl"
    priority: 10
    conda:
        "../envs/hemorrhage.yaml"
    threads: 1
    resources:
        mem_mb=get_memory_mb,
        gpu=1,
    params:
        decoder=lambda wildcards: STUDY.decoder_settings(wildcards.decoder),
        prompts=STUDY.config["decoding"]["prompts"],
        length={
            "new_tokens": STUDY.config["decoding"]["new_tokens"],
            "seeds": STUDY.config["decoding"]["seeds"],
        },
        given={
            "dtype": STUDY.config["dtype"],
            "seed": STUDY.config["seed"],
            "chunk": STUDY.config["chunk"],
        },
        software=TORCH,
    script:
        "../scripts/generate_text.py"


# Compare texts token by token: the effect of the decoder, the effect of the weights, the floor of another seed.
rule measure_text:
    input:
        text=f"{VARIANT}/text/{{decoder}}.jsonl",
        greedy=f"{VARIANT}/text/greedy.jsonl",
        reference=f"{MODEL}/variants/identity/text/{{decoder}}.jsonl",
        sources=sources("measure_text.py"),
    output:
        record=ensure(f"{VARIANT}/text/{{decoder}}.json", non_empty=True),
    log:
        "results/logs/measure_text/{model}/{variant}/{decoder}.log",
    benchmark:
        "results/benchmarks/measure_text/{model}/{variant}/{decoder}.jsonl"
    conda:
        "../envs/hemorrhage.yaml"
    threads: 1
    resources:
        mem_mb=1000,
    params:
        software=TABLE,
    script:
        "../scripts/measure_text.py"
