"""This part draws the figures and writes summary and report, all from the tables.

REQUIRED INPUTS: results/tables/*.tsv, windows.parquet
OUTPUTS: results/figures/*.svg and *.png, results/summary.md, results/report.html
"""

COMBINATIONS = (
    [f"{TABLES}/combinations.tsv"] if "surface" in figure_plan.figures(STUDY) else []
)

TEXTS = [f"{TABLES}/texts.tsv"] if STUDY.chosen("decoding") else []

FIGURES = [
    f"results/figures/{figure}.{suffix}"
    for figure in figure_plan.figures(STUDY)
    for suffix in ("svg", "png")
]

for figure in figure_plan.figures(STUDY):

    rule:
        name:
            f"plot_{figure}"
        input:
            metrics=f"{TABLES}/metrics.tsv",
            thresholds=f"{TABLES}/thresholds.tsv",
            mitigations=f"{TABLES}/mitigations.tsv",
            floors=f"{TABLES}/floors.tsv",
            # Tables that only this figure reads.
            own=get_own_tables(figure),
            sources=sources(
                "plot_figure.py",
                "figures",
                [figure_plan.figures(STUDY)[figure]["name"]],
            ),
        output:
            svg=f"results/figures/{figure}.svg",
            png=f"results/figures/{figure}.png",
        log:
            f"results/logs/plot_{figure}.log",
        benchmark:
            f"results/benchmarks/plot_{figure}.jsonl"
        conda:
            "../envs/hemorrhage.yaml"
        threads: 1
        params:
            figure=figure_plan.figures(STUDY)[figure],
            grid=STUDY.grid(),
            thresholds=STUDY.config["thresholds"],
            software=FIGURE,
        script:
            "../scripts/plot_figure.py"


# Findings, thresholds and mitigations on one page of Markdown.
rule write_summary:
    input:
        metrics=f"{TABLES}/metrics.tsv",
        thresholds=f"{TABLES}/thresholds.tsv",
        mitigations=f"{TABLES}/mitigations.tsv",
        floors=f"{TABLES}/floors.tsv",
        statements=f"{TABLES}/statements.tsv",
        combinations=COMBINATIONS,
        bases=every(f"{MODEL}/base/hemorrhage.json", [""]),
        sources=sources("write_summary.py"),
    output:
        summary="results/summary.md",
    log:
        "results/logs/write_summary.log",
    benchmark:
        "results/benchmarks/write_summary.jsonl"
    conda:
        "../envs/hemorrhage.yaml"
    threads: 1
    params:
        grid=STUDY.grid(),
        thresholds=STUDY.config["thresholds"],
        software=TABLE,
    script:
        "../scripts/write_summary.py"


# One self-contained page.
rule write_report:
    input:
        metrics=f"{TABLES}/metrics.tsv",
        thresholds=f"{TABLES}/thresholds.tsv",
        mitigations=f"{TABLES}/mitigations.tsv",
        floors=f"{TABLES}/floors.tsv",
        statements=f"{TABLES}/statements.tsv",
        figures=[figure for figure in FIGURES if figure.endswith(".svg")],
        texts=TEXTS,
        combinations=COMBINATIONS,
        bases=every(f"{MODEL}/base/hemorrhage.json", [""]),
        template=relative("rules/report/report.html.j2"),
        style=relative("rules/report/report.css"),
        sources=sources("write_report.py", "modifications", STUDY.methods()),
    output:
        report="results/report.html",
    log:
        "results/logs/write_report.log",
    benchmark:
        "results/benchmarks/write_report.jsonl"
    conda:
        "../envs/hemorrhage.yaml"
    threads: 1
    params:
        grid=STUDY.grid(),
        thresholds=STUDY.config["thresholds"],
        figures=list(figure_plan.figures(STUDY)),
        software=software("jinja2", "pandas"),
    script:
        "../scripts/write_report.py"
