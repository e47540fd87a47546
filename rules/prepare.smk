"""This part fetches models and texts and brings them into one form.

REQUIRED INPUTS: none; sources of the config, from the cache of downloads or the network.
OUTPUTS: results/models/{model}/base/ (dense checkpoint, tokenizer), tokens/{set}.npz, checked.json
"""


# Fetch a model and write it as a dense checkpoint.
rule prepare_model:
    input:
        sources=sources("prepare_model.py", "sources", fetch.kinds()),
    output:
        # The record is the edge: Snakemake does not notice a changed file inside a folder.
        record=ensure(f"{MODEL}/base/hemorrhage.json", non_empty=True),
    log:
        "results/logs/prepare_model/{model}.log",
    benchmark:
        "results/benchmarks/prepare_model/{model}.jsonl"
    retries: 1
    conda:
        "../envs/hemorrhage.yaml"
    threads: 1
    resources:
        mem_mb=4000,
    params:
        source=lambda wildcards: STUDY.config["models"][wildcards.model],
        dtype=STUDY.config["dtype"],
        trust=lambda wildcards: STUDY.trusted(wildcards.model),
        software=TORCH,
    script:
        "../scripts/prepare_model.py"


# Cut text into fixed windows of tokens; the sets share no article, or no piece of a text that is one.
rule prepare_tokens:
    input:
        base=f"{MODEL}/base/hemorrhage.json",
        sources=sources("prepare_tokens.py", "sources", fetch.kinds()),
    output:
        tokens=ensure(f"{MODEL}/tokens/{{set}}.npz", non_empty=True),
    log:
        "results/logs/prepare_tokens/{model}.{set}.log",
    benchmark:
        "results/benchmarks/prepare_tokens/{model}.{set}.jsonl"
    priority: 20
    retries: 1
    conda:
        "../envs/hemorrhage.yaml"
    threads: 1
    resources:
        mem_mb=2000,
    params:
        specs=lambda wildcards: STUDY.tokens.specs(wildcards.set),
        texts=lambda wildcards: STUDY.tokens.texts_of(wildcards.set),
        seed=STUDY.config["seed"],
        software=software("transformers", "tokenizers", "mwparserfromhell", "numpy"),
    script:
        "../scripts/prepare_tokens.py"


# Refuse what only the model and its tokens can tell, before any variant is made.
rule check_study:
    input:
        base=f"{MODEL}/base/hemorrhage.json",
        tokens=[
            f"{MODEL}/tokens/{name}.npz"
            for name in ("evaluation", "fit")
            if name in STUDY.tokens.sets
        ],
        sources=sources("check_study.py"),
    output:
        checked=ensure(f"{MODEL}/checked.json", non_empty=True),
    log:
        "results/logs/check_study/{model}.log",
    benchmark:
        "results/benchmarks/check_study/{model}.jsonl"
    conda:
        "../envs/hemorrhage.yaml"
    threads: 1
    resources:
        mem_mb=500,
    params:
        # A function of `input` is not tracked, on purpose: another level must not make all variants again. Once the
        # base is there, a new variant is checked while the DAG is built.
        recipes=lambda wildcards, input: STUDY.grid()["recipes"],
    script:
        "../scripts/check_study.py"
