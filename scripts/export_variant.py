"""Keep one variant as a folder that plain transformers loads, with a card of its measured damage.

A variant whose last step is a format of deployment is kept twice: dense, and packed in the folder ``packed``.
"""

from hemorrhage import checkpoints, files, jobs, records
from hemorrhage.architecture import models
from hemorrhage.modification_data import ModificationData
from hemorrhage.reporting import model_card

PACKED = "packed"


def export(modification, fidelity, data, severity, folder):
    """Write weights, tokenizer, ``hemorrhage.json``, the packed checkpoint if there is one, and the card."""
    model, record = checkpoints.open_variant(modification, data)
    tokenizer = models.load_tokenizer(data.base)
    with files.atomic(folder) as part:
        checkpoints.write(model, part, record)
        tokenizer.save_pretrained(part)
        packed = part.resolve() / PACKED
        if checkpoints.pack(record, data, packed):
            tokenizer.save_pretrained(packed)
        base = files.read_json(data.base / "hemorrhage.json")
        files.write_text(part / "README.md", model_card.text(record, base, records.read(fidelity), severity))


if __name__ == "__main__":
    with jobs.job(snakemake) as log:
        jobs.use_threads(snakemake)
        model_dir = snakemake.input.modification.rsplit("/variants/", 1)[0]
        params = snakemake.params
        data = ModificationData(model_dir, device=jobs.device(snakemake), trusted=tuple(params.trust), **params.given)
        export(
            snakemake.input.modification,
            snakemake.input.fidelity,
            data,
            params.severity,
            snakemake.output.folder,
        )
