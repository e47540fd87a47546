"""Judge the qualitative statements of paper and field on the tables of this study."""

from hemorrhage import jobs
from hemorrhage.analysis import statements

if __name__ == "__main__":
    with jobs.job(snakemake) as log:
        statements.judge(
            snakemake.input.metrics,
            snakemake.input.windows,
            snakemake.input.cuts,
            snakemake.params.grid,
            snakemake.output.statements,
        )
