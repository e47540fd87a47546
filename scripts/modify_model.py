"""Follow a variant's recipe, fill the cache of checkpoints and record what was achieved."""

from hemorrhage import checkpoints, files, jobs
from hemorrhage.modification_data import ModificationData


def modify(recipe, data, sources, versions, output):
    """Build the variant and write its ``modification.json``."""
    entry = checkpoints.key(recipe, data, sources, versions)
    files.write_json(output, checkpoints.build(recipe, data, entry))


if __name__ == "__main__":
    with jobs.job(snakemake) as log:
        jobs.use_threads(snakemake)
        params = snakemake.params
        model_dir = snakemake.input.base.rsplit("/base/", 1)[0]
        data = ModificationData(model_dir, device=jobs.device(snakemake), trusted=tuple(params.trust), **params.given)
        modify(params.recipe, data, snakemake.input.sources, params.software, snakemake.output.modification)
