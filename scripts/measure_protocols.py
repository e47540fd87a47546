"""Measure the unmodified model's perplexity under several protocols."""

from hemorrhage import cache, jobs
from hemorrhage.corpus import texts
from hemorrhage.measuring import protocol_effects
from hemorrhage.sources import fetch

if __name__ == "__main__":
    with jobs.job(snakemake) as log:
        jobs.use_threads(snakemake)
        params = snakemake.params
        path = fetch.fetch(params.text["source"], params.text.get("sha256"), cache.downloads())
        protocol_effects.measure(
            snakemake.input.base.rsplit("/", 1)[0],
            params.plans,
            texts.articles(path, params.text["format"]),
            snakemake.wildcards.model,
            params.seed,
            jobs.device(snakemake),
            params.tokens_at_once,
            snakemake.output.record,
        )
