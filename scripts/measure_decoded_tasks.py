"""Let one variant answer tasks with each of the chosen decoders."""

from hemorrhage import checkpoints, jobs, records
from hemorrhage.architecture import models
from hemorrhage.modification_data import ModificationData
from hemorrhage.tasks import decoded_records


def measure(modification, others, decoders, tasks, data, seen, baselines, identity, outputs):
    """Write a record per decoder; ``others`` and ``baselines`` hold paths by variant and by decoder."""
    decoded_records.require_sandbox(tasks)
    model, _ = checkpoints.open_variant(modification, data)
    opened = {slug: checkpoints.open_variant(record, data)[0] for slug, record in others.items()}
    tokenizer = models.load_tokenizer(data.base)
    answers = decoded_records.ask(model, tokenizer, decoders, tasks, seen, opened)
    references = {decoder: records.read_arrays(path) for decoder, path in baselines.items()}
    decoded_records.write(answers, references, tasks, identity, outputs)


if __name__ == "__main__":
    with jobs.job(snakemake) as log:
        jobs.use_threads(snakemake)
        params = snakemake.params
        model_dir = snakemake.input.base.rsplit("/base/", 1)[0]
        data = ModificationData(model_dir, device=jobs.device(snakemake), trusted=tuple(params.trust), **params.given)
        names = list(params.decoders)
        measure(
            snakemake.input.modification,
            dict(zip(params.others, snakemake.input.others, strict=True)),
            params.decoders,
            params.tasks,
            data,
            snakemake.input.seen,
            dict(zip(names, snakemake.input.baselines, strict=False)),
            dict(snakemake.wildcards.items()),
            dict(zip(names, snakemake.output.records, strict=True)),
        )
