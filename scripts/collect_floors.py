"""Gather the floors of all models into floors.tsv."""

from hemorrhage import jobs
from hemorrhage.analysis import tables

if __name__ == "__main__":
    with jobs.job(snakemake) as log:
        references = dict(zip(snakemake.params.models, snakemake.input.references, strict=True))
        tables.collect_floors(references, snakemake.output.floors)
