"""Compare two steps together with the sum of each alone."""

from hemorrhage import jobs
from hemorrhage.analysis import combinations

if __name__ == "__main__":
    with jobs.job(snakemake) as log:
        combinations.compare(snakemake.input.windows, snakemake.params.grid, snakemake.output.combinations)
