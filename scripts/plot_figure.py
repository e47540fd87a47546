"""Draw one figure from the tables."""

from pathlib import Path

from hemorrhage import jobs, plugins

if __name__ == "__main__":
    with jobs.job(snakemake) as log:
        figure = snakemake.params.figure
        paths = {name: snakemake.input[name] for name in ("metrics", "thresholds", "mitigations", "floors")}
        paths |= {Path(path).stem: path for path in snakemake.input.own}
        plugins.get("figures", figure["name"]).module.draw(
            paths,
            snakemake.params.grid,
            snakemake.params.thresholds,
            figure,
            snakemake.output.svg,
            snakemake.output.png,
        )
