"""This part generates text with reference and variants and measures where it departs.

REQUIRED INPUTS: variants/{variant}/modification.json, tokens/evaluation.npz
OUTPUTS: variants/{variant}/text/{decoder}.jsonl, {decoder}.json and {decoder}.npz, variants/{variant}/forced.npz,
variants/{variant}/decoded_tasks/{decoder}.json and {decoder}.npz where the study has tasks for its decoders,
results/tables/{divergence,texts}.tsv
"""


# Generate text with one decoder; the noise is keyed by prompt, step and token, the same for every variant.
rule generate_text:
    input:
        modification=f"{VARIANT}/modification.json",
        tokens=f"{MODEL}/tokens/evaluation.npz",
        data=get_modification_data,
        others=lambda wildcards: get_others([wildcards.decoder])[1],
        others_data=get_others_data(lambda wildcards: [wildcards.decoder]),
        prompts=STUDY.decoding.prompt_files(),
        sources=lambda wildcards: sources(
            "generate_text.py",
            "decoders",
            [STUDY.decoding.decoder(wildcards.decoder).method],
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
        gpu=GPU,
    params:
        decoder=lambda wildcards: STUDY.decoding.settings_of(wildcards.decoder),
        others=lambda wildcards: get_others([wildcards.decoder])[0],
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
        trust=lambda wildcards: STUDY.trusted(wildcards.model),
        software=TORCH,
    script:
        "../scripts/generate_text.py"


# Let every decoder choose along the reference's greedy text, and let the reference read the texts of the variant.
rule measure_forced:
    input:
        base=f"{MODEL}/base/hemorrhage.json",
        modification=f"{VARIANT}/modification.json",
        greedy=f"{MODEL}/variants/identity/text/greedy.jsonl",
        texts=[f"{VARIANT}/text/{decoder}.jsonl" for decoder in DECODERS],
        data=get_modification_data,
        others=get_others(DECODERS)[1],
        others_data=get_others_data(lambda wildcards: DECODERS),
        sources=sources(
            "measure_forced.py",
            "decoders",
            sorted({decoder.method for decoder in STUDY.decoding.decoders}),
        ),
    output:
        forced=ensure(f"{VARIANT}/forced.npz", non_empty=True),
    log:
        "results/logs/measure_forced/{model}/{variant}.log",
    benchmark:
        "results/benchmarks/measure_forced/{model}/{variant}.jsonl"
    priority: 10
    conda:
        "../envs/hemorrhage.yaml"
    threads: 1
    resources:
        mem_mb=get_forced_memory_mb,
        gpu=GPU,
    params:
        decoders={decoder: STUDY.decoding.settings_of(decoder) for decoder in DECODERS},
        others=get_others(DECODERS)[0],
        seeds=STUDY.config["decoding"]["seeds"],
        given={
            "dtype": STUDY.config["dtype"],
            "seed": STUDY.config["seed"],
            "chunk": STUDY.config["chunk"],
        },
        trust=lambda wildcards: STUDY.trusted(wildcards.model),
        software=TORCH,
    script:
        "../scripts/measure_forced.py"


# Compare texts token by token: the effect of the decoder, the effect of the weights, the floor of another seed.
rule measure_text:
    input:
        text=f"{VARIANT}/text/{{decoder}}.jsonl",
        greedy=f"{VARIANT}/text/greedy.jsonl",
        reference=f"{MODEL}/variants/identity/text/{{decoder}}.jsonl",
        forced=f"{VARIANT}/forced.npz",
        reference_forced=f"{MODEL}/variants/identity/forced.npz",
        sources=sources("measure_text.py"),
    output:
        record=ensure(f"{VARIANT}/text/{{decoder}}.json", non_empty=True),
        arrays=ensure(f"{VARIANT}/text/{{decoder}}.npz", non_empty=True),
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
        software=TABLE | software("mauve-text"),
    script:
        "../scripts/measure_text.py"


# Let the decoders answer tasks: one job per variant, since starting a process costs more than a decoder's answers.
if TASK_DECODERS:

    rule measure_decoded_tasks:
        input:
            base=f"{MODEL}/base/hemorrhage.json",
            modification=f"{VARIANT}/modification.json",
            data=get_modification_data,
            others=get_others(TASK_DECODERS)[1],
            others_data=get_others_data(lambda wildcards: TASK_DECODERS),
            seen=STUDY.seen_sets(f"{MODEL}/tokens") if STUDY.task_text() else [],
            baselines=get_task_baselines,
            files=STUDY.decoding.task_files(),
            sources=get_task_sources(),
        output:
            records=[
                ensure(f"{VARIANT}/decoded_tasks/{decoder}.json", non_empty=True)
                for decoder in TASK_DECODERS
            ],
            arrays=[
                ensure(f"{VARIANT}/decoded_tasks/{decoder}.npz", non_empty=True)
                for decoder in TASK_DECODERS
            ],
        log:
            "results/logs/measure_decoded_tasks/{model}/{variant}.log",
        benchmark:
            "results/benchmarks/measure_decoded_tasks/{model}/{variant}.jsonl"
        priority: 10
        conda:
            "../envs/hemorrhage.yaml"
        threads: 1
        resources:
            mem_mb=get_memory_mb,
            gpu=GPU,
        params:
            decoders={
                decoder: STUDY.decoding.settings_of(decoder)
                for decoder in TASK_DECODERS
            },
            others=get_others(TASK_DECODERS)[0],
            tasks=STUDY.decoded_tasks(),
            given={
                "dtype": STUDY.config["dtype"],
                "seed": STUDY.config["seed"],
                "chunk": STUDY.config["chunk"],
            },
            trust=lambda wildcards: STUDY.trusted(wildcards.model),
            software=TORCH | software("lm-eval", "datasets", "mwparserfromhell"),
        script:
            "../scripts/measure_decoded_tasks.py"


# The share of texts that still agree, place by place.
rule collect_divergence:
    input:
        records=get_texts("json"),
        arrays=get_texts("npz"),
        sources=sources("collect_divergence.py"),
    output:
        divergence=f"{TABLES}/divergence.tsv",
    log:
        "results/logs/collect_divergence.log",
    benchmark:
        "results/benchmarks/collect_divergence.jsonl"
    conda:
        "../envs/hemorrhage.yaml"
    threads: 1
    params:
        software=TABLE,
    script:
        "../scripts/collect_divergence.py"


# Reference and variant side by side, with the place where they part and how the variant's text fails.
rule collect_texts:
    input:
        texts=get_texts("jsonl"),
        forced=every(f"{VARIANT}/forced.npz", STUDY.chosen("decoding")),
        sources=sources("collect_texts.py"),
    output:
        texts=f"{TABLES}/texts.tsv",
    log:
        "results/logs/collect_texts.log",
    benchmark:
        "results/benchmarks/collect_texts.jsonl"
    conda:
        "../envs/hemorrhage.yaml"
    threads: 1
    params:
        models=list(STUDY.config["models"]),
        variants=STUDY.chosen("decoding"),
        decoders=DECODERS,
        software=TABLE,
    script:
        "../scripts/collect_texts.py"
