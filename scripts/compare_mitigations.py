"""Compare every mitigation with what it repairs."""

from hemorrhage import jobs
from hemorrhage.analysis import mitigations

if __name__ == "__main__":
    with jobs.job(snakemake) as log:
        mitigations.compare(
            snakemake.input.metrics,
            snakemake.input.windows,
            snakemake.params.grid,
            snakemake.params.criteria,
            snakemake.input.floors,
            snakemake.output.mitigations,
        )
