"""Collect the share of texts that still agree, place by place."""

from hemorrhage import jobs
from hemorrhage.decoding import side_by_side

if __name__ == "__main__":
    with jobs.job(snakemake) as log:
        side_by_side.collect_divergence(snakemake.input.records, snakemake.output.divergence)
