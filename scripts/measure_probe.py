"""Measure one variant with one probe, against the reference."""

from hemorrhage import checkpoints, jobs, plugins, records
from hemorrhage.architecture import models
from hemorrhage.corpus.tokens import TokenSet
from hemorrhage.measuring.reference import Reference
from hemorrhage.modification_data import ModificationData
from hemorrhage.probing import Context


def measure(modification, reference, tokens, record, identity, probe, data, batch, baseline=None, seen=()):
    """Write the records of ``probe`` for the variant of ``modification``; ``identity`` names model and variant.

    ``baseline`` is the file of arrays that the probe recorded of the reference, ``seen`` the token sets of which a
    probe that reads texts takes no article.
    """
    plugin = plugins.get("probes", probe["name"])
    settings = plugin.settings(probe["settings"])
    model, facts = checkpoints.open_variant(modification, data)
    context = Context(
        tokens=TokenSet.load(tokens),
        reference=Reference.open(reference),
        reference_head=data.reference_head,
        batch=batch,
        layer_map=facts["layer_map"],
        model=identity["model"],
        load_reference=lambda: models.load(data.base, data.dtype, data.device),
        baseline=records.read_arrays(baseline) if baseline else None,
        text=probe["text"],
        seen=seen,
        model_dir=data.model_dir,
    )
    measurement = plugin.module.measure(model, context, settings)
    records.write(
        record,
        measurement,
        probe=probe["name"],
        version=plugin.module.VERSION,
        protocol=context.tokens.meta["protocol"],
        **identity,
    )


if __name__ == "__main__":
    with jobs.job(snakemake) as log:
        jobs.use_threads(snakemake)
        params = snakemake.params
        model_dir = snakemake.input.tokens.rsplit("/tokens/", 1)[0]
        data = ModificationData(model_dir, device=jobs.device(snakemake), trusted=tuple(params.trust), **params.given)
        measure(
            snakemake.input.modification,
            snakemake.input.reference.rsplit("/", 1)[0],
            snakemake.input.tokens,
            snakemake.output.record,
            dict(snakemake.wildcards.items()),
            params.probe,
            data,
            params.batch,
            snakemake.input.baseline,
            snakemake.input.seen,
        )
