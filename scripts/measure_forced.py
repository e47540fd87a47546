"""Let every decoder choose along the reference's greedy text, with the reference and with one variant."""

from hemorrhage import checkpoints, jobs
from hemorrhage.architecture import models
from hemorrhage.measuring import forced
from hemorrhage.modification_data import ModificationData


def measure(modification, greedy, decoders, texts, seeds, others, data, output):
    """Write the archive of one variant; ``texts`` and ``others`` hold paths by decoder and by variant."""
    reference = models.load(data.base, data.dtype, data.device)
    model, _ = checkpoints.open_variant(modification, data)
    opened = {slug: checkpoints.open_variant(record, data)[0] for slug, record in others.items()}
    forced.measure(reference, model, greedy, decoders, texts, seeds, opened, output)


if __name__ == "__main__":
    with jobs.job(snakemake) as log:
        jobs.use_threads(snakemake)
        params = snakemake.params
        model_dir = snakemake.input.base.rsplit("/base/", 1)[0]
        data = ModificationData(model_dir, device=jobs.device(snakemake), trusted=tuple(params.trust), **params.given)
        measure(
            snakemake.input.modification,
            snakemake.input.greedy,
            params.decoders,
            dict(zip(params.decoders, snakemake.input.texts, strict=True)),
            params.seeds,
            dict(zip(params.others, snakemake.input.others, strict=True)),
            data,
            snakemake.output.forced,
        )
