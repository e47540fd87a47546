"""Time one variant: tokens a second of reading and of generating."""

import torch

from hemorrhage import checkpoints, jobs
from hemorrhage.corpus.tokens import TokenSet
from hemorrhage.measuring import speed
from hemorrhage.modification_data import ModificationData

if __name__ == "__main__":
    with jobs.job(snakemake) as log:
        jobs.use_threads(snakemake)
        model_dir = snakemake.input.tokens.rsplit("/tokens/", 1)[0]
        data = ModificationData(model_dir, device=jobs.device(snakemake), **snakemake.params.given)
        model, record = checkpoints.open_variant(snakemake.input.modification, data)
        window = torch.as_tensor(TokenSet.load(snakemake.input.tokens).tokens[0], dtype=torch.long)
        facts = {
            **dict(snakemake.wildcards.items()),
            "parameters": record["parameters"],
            "bytes": record["bytes"],
            "threads": snakemake.threads,
            "device": str(model.device.type),
        }
        speed.write(snakemake.output.record, speed.measure(model, window, **snakemake.params.speed), facts)
