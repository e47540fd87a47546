"""Write the report: one self-contained page from the tables and figures."""

from hemorrhage import jobs, plugins
from hemorrhage.reporting import notes, report

if __name__ == "__main__":
    with jobs.job(snakemake) as log:
        paths = {
            name: snakemake.input[name] for name in ("metrics", "thresholds", "mitigations", "floors", "statements")
        }
        paths |= {"texts": snakemake.input.texts[0]} if snakemake.input.texts else {}
        paths |= {"combinations": snakemake.input.combinations[0]} if snakemake.input.combinations else {}
        figures = dict(zip(snakemake.params.figures, snakemake.input.figures, strict=True))
        report.write(
            paths,
            figures,
            snakemake.params.grid,
            snakemake.params.thresholds,
            notes.of(snakemake.input.bases),
            snakemake.input.template,
            snakemake.output.report,
            plugins.summaries("modifications"),
        )
