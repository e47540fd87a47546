"""Find the threshold of every sweep by every criterion."""

from hemorrhage import jobs
from hemorrhage.analysis import thresholds

if __name__ == "__main__":
    with jobs.job(snakemake) as log:
        thresholds.find(
            snakemake.input.metrics,
            snakemake.params.grid,
            snakemake.params.criteria,
            snakemake.input.floors,
            snakemake.output.thresholds,
        )
