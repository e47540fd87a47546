"""Compare one variant's continuations with its greedy ones and with the reference's."""

from hemorrhage import jobs
from hemorrhage.decoding import trajectories

if __name__ == "__main__":
    with jobs.job(snakemake) as log:
        trajectories.measure(
            snakemake.input.text,
            snakemake.input.greedy,
            snakemake.input.reference,
            snakemake.output.record,
            forced=snakemake.input.forced,
            reference_forced=snakemake.input.reference_forced,
            **dict(snakemake.wildcards.items()),
        )
