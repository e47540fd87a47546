"""Set the texts of reference and variants side by side."""

from hemorrhage import jobs
from hemorrhage.decoding import side_by_side

if __name__ == "__main__":
    with jobs.job(snakemake) as log:
        params = snakemake.params
        side_by_side.collect_texts(params.models, params.variants, params.decoders, snakemake.output.texts)
