"""Gather the records of all variants into metrics.tsv, windows.parquet and cuts.tsv."""

from hemorrhage import jobs
from hemorrhage.analysis import cuts, tables

if __name__ == "__main__":
    with jobs.job(snakemake) as log:
        tables.collect(
            snakemake.input.records, snakemake.params.grid, snakemake.output.metrics, snakemake.output.windows
        )
        cuts.collect(snakemake.input.modifications, snakemake.output.cuts)
