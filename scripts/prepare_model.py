"""Fetch a model and write it as a dense checkpoint with its tokenizer."""

from hemorrhage import cache, jobs
from hemorrhage.architecture import models
from hemorrhage.sources import fetch


def prepare(source, dtype, trust, folder):
    """Write the base folder of one model.

    ``source`` holds where it comes from and its checksum, ``trust`` what it may bring: "pickles", "remote_code".
    """
    sha256 = source.get("sha256")
    path = fetch.fetch(source["source"], sha256, cache.downloads(), trust)
    models.prepare(path, folder, source=source["source"], sha256=sha256, dtype=dtype, trust=trust)


if __name__ == "__main__":
    with jobs.job(snakemake) as log:
        jobs.use_threads(snakemake)
        prepare(
            snakemake.params.source,
            snakemake.params.dtype,
            snakemake.params.trust,
            snakemake.output.record.rsplit("/", 1)[0],
        )
