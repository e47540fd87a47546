"""Gather the perplexities under several protocols into protocols.tsv."""

from hemorrhage import jobs
from hemorrhage.measuring import protocol_effects

if __name__ == "__main__":
    with jobs.job(snakemake) as log:
        protocol_effects.collect(snakemake.input.records, snakemake.output.protocols)
