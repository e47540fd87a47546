"""Keep one variant as a folder that plain transformers loads, with a card of its measured damage."""

from hemorrhage import checkpoints, files, jobs, records
from hemorrhage.architecture import models
from hemorrhage.modification_data import ModificationData
from hemorrhage.reporting import model_card


def export(modification, fidelity, data, severity, folder):
    """Write weights, tokenizer, ``hemorrhage.json`` and the card."""
    model, record = checkpoints.open_variant(modification, data)
    with files.atomic(folder) as part:
        checkpoints.write(model, part, record)
        models.load_tokenizer(data.base).save_pretrained(part)
        base = files.read_json(data.base / "hemorrhage.json")
        files.write_text(part / "README.md", model_card.text(record, base, records.read(fidelity), severity))


if __name__ == "__main__":
    with jobs.job(snakemake) as log:
        jobs.use_threads(snakemake)
        model_dir = snakemake.input.modification.rsplit("/variants/", 1)[0]
        data = ModificationData(model_dir, **snakemake.params.given)
        export(
            snakemake.input.modification,
            snakemake.input.fidelity,
            data,
            snakemake.params.severity,
            snakemake.output.folder,
        )
