"""Aggregate the magnitudes of the reference's gradients over a calibration set."""

import torch
from safetensors.torch import save_file

from hemorrhage import files, jobs
from hemorrhage.activations import gradients
from hemorrhage.architecture import models
from hemorrhage.corpus.tokens import TokenSet


def collect(base, tokens, norm, dtype, device, output):
    """Write one tensor [out, in] per target."""
    model = models.load(base, dtype, device)
    windows = torch.as_tensor(TokenSet.load(tokens).tokens, dtype=torch.long, device=device)
    sums = {name: value.cpu().contiguous() for name, value in gradients.collect(model, windows, norm).items()}
    with files.atomic(output) as part:
        save_file(sums, part)


if __name__ == "__main__":
    with jobs.job(snakemake) as log:
        jobs.use_threads(snakemake)
        collect(
            snakemake.input.base.rsplit("/", 1)[0],
            snakemake.input.tokens,
            snakemake.wildcards.norm,
            snakemake.params.dtype,
            jobs.device(snakemake),
            snakemake.output.gradients,
        )
