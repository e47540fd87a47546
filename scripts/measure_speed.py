"""Time one variant: tokens a second of reading and of generating."""

import torch

from hemorrhage import checkpoints, jobs
from hemorrhage.corpus.tokens import TokenSet
from hemorrhage.measuring import speed
from hemorrhage.modification_data import ModificationData

if __name__ == "__main__":
    with jobs.job(snakemake) as log:
        jobs.use_threads(snakemake)
        params = snakemake.params
        model_dir = snakemake.input.tokens.rsplit("/tokens/", 1)[0]
        data = ModificationData(model_dir, device=jobs.device(snakemake), trusted=tuple(params.trust), **params.given)
        model, record = checkpoints.open_variant(snakemake.input.modification, data)
        window = torch.as_tensor(TokenSet.load(snakemake.input.tokens).tokens[0], dtype=torch.long)
        facts = {
            **dict(snakemake.wildcards.items()),
            "parameters": record["parameters"],
            "dense_bytes": record["bytes"],  # of what is timed; a packed file is unpacked before
            "bytes_on_disk": next(
                (step["bytes_on_disk"] for step in record["achieved"] if "bytes_on_disk" in step), None
            ),
            "threads": snakemake.threads,
            "device": str(model.device.type),
        }
        speed.write(snakemake.output.record, speed.measure(model, window, **params.speed), facts)
