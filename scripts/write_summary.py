"""Write the summary from the tables."""

from hemorrhage import jobs
from hemorrhage.reporting import notes, summary

if __name__ == "__main__":
    with jobs.job(snakemake) as log:
        paths = {
            name: snakemake.input[name] for name in ("metrics", "thresholds", "mitigations", "floors", "statements")
        }
        paths |= {"combinations": snakemake.input.combinations[0]} if snakemake.input.combinations else {}
        summary.write(
            paths,
            snakemake.params.grid,
            snakemake.params.thresholds,
            notes.of(snakemake.input.bases),
            snakemake.output.summary,
        )
