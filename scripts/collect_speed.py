"""Gather the times of all variants into speed.tsv."""

from hemorrhage import jobs
from hemorrhage.measuring import speed

if __name__ == "__main__":
    with jobs.job(snakemake) as log:
        speed.collect(snakemake.input.records, snakemake.output.table)
