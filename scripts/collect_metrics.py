"""Gather the records of all variants into metrics.tsv and windows.parquet."""

from hemorrhage import jobs
from hemorrhage.analysis import tables

if __name__ == "__main__":
    with jobs.job(snakemake) as log:
        tables.collect(
            snakemake.input.records, snakemake.params.grid, snakemake.output.metrics, snakemake.output.windows
        )
