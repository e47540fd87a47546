"""Cut texts into the fixed windows of one token set."""

from hemorrhage import cache, checksums, jobs
from hemorrhage.architecture import models
from hemorrhage.corpus import texts, tokens
from hemorrhage.sources import fetch


def prepare(base, set_name, specs, sources, seed, output):
    """Write the token set; ``sources`` names, per text, where it comes from and its format."""
    articles, digests = {}, {}
    for name, source in sources.items():
        path = fetch.fetch(source["source"], source.get("sha256"), cache.downloads())
        articles[name] = texts.articles(path, source["format"])
        digests[name] = checksums.sha256(path)
    built = tokens.build(set_name, specs, articles, models.load_tokenizer(base), seed, digests)
    built.save(output)


if __name__ == "__main__":
    with jobs.job(snakemake) as log:
        prepare(
            snakemake.input.base.rsplit("/", 1)[0],
            snakemake.wildcards.set,
            snakemake.params.specs,
            snakemake.params.texts,
            snakemake.params.seed,
            snakemake.output.tokens,
        )
