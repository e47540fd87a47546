"""Run the reference over a token set: what every variant is compared with, and the floors."""

from hemorrhage import jobs
from hemorrhage.architecture import models
from hemorrhage.corpus.tokens import TokenSet
from hemorrhage.measuring import reference

if __name__ == "__main__":
    with jobs.job(snakemake) as log:
        jobs.use_threads(snakemake)
        base = snakemake.input.base.rsplit("/", 1)[0]
        model = models.load(base, snakemake.params.dtype, jobs.device(snakemake))
        folder = snakemake.output.record.rsplit("/", 1)[0]
        reference.measure(model, TokenSet.load(snakemake.input.tokens), folder, snakemake.params.batch)
