"""Refuse the variants that this model cannot have, by what its config tells and what its jobs can import."""

from hemorrhage import files, jobs
from hemorrhage.planning import local_config, refusals

if __name__ == "__main__":
    with jobs.job(snakemake) as log:
        facts = local_config.facts(snakemake.input.base.rsplit("/", 1)[0])
        for variant, recipe in snakemake.params.recipes.items():
            refusals.check_packages(variant, recipe)
            refusals.check_recipe(f"{variant} on model {snakemake.wildcards.model}", recipe, facts)
        files.write_json(snakemake.output.checked, facts)
