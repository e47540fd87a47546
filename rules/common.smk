"""What the rules share: the checked config as STUDY, source files as inputs, package versions as params. No rules."""

import os
import re
import sys
from importlib import metadata
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.utils import validate

# The workflow may be a module of another one: its own folder, not that of the main Snakefile.
SCRIPTS = (
    Path(workflow.current_basedir.get_path_or_uri(secret_free=True)).resolve().parent
    / "scripts"
)
sys.path.insert(0, str(SCRIPTS))

from hemorrhage import jobs, plugins
from hemorrhage.planning import closure, figure_plan, refusals, study
from hemorrhage.sources import fetch

try:
    validate(config, "schemas/config.schema.yaml")
    STUDY = study.Study(config)
except (WorkflowError, ValueError) as error:
    sys.exit(f"The config is refused: {refusals.reason(error)}")

MODEL = "results/models/{model}"
VARIANT = f"{MODEL}/variants/{{variant}}"
TABLES = "results/tables"
# The rules that run a model take a GPU where this machine has one. A cluster's profile says what its nodes have.
GPU = jobs.gpu_is_here()


def software(*packages):
    """Versions of the packages that can change a job's numbers; "absent" where one is not installed."""

    def version(package):
        try:
            return metadata.version(package)
        except metadata.PackageNotFoundError:
            return "absent"

    return {package: version(package) for package in sorted(packages)}


TORCH = software("torch", "transformers", "tokenizers", "safetensors", "numpy", "gguf")
TABLE = software("numpy", "pandas", "pyarrow")
FIGURE = software("matplotlib", "numpy", "pandas")


def relative(file):
    """A file of the project, relative to the working directory: absolute inputs re-run when the folder moves."""
    return os.path.relpath(SCRIPTS.parent / file)


def sources(script, kind=None, names=()):
    """The script of a rule and all it imports, and the plug-in files that it loads by name with all they import."""
    files = [plugins.found(kind)[name].path for name in names]
    return closure.sources(SCRIPTS / script, *files)


def get_probe_sources(probe):
    """The sources of a probe, with every kind of source if it reads texts."""
    kinds = fetch.kinds() if STUDY.probe(probe)["text"] else []
    return sorted(
        {
            *sources("measure_probe.py", "probes", [probe]),
            *sources("measure_probe.py", "sources", kinds),
        }
    )


def baseline_of(probe):
    """What a probe compares with is what it recorded of the reference, which itself compares with nothing."""

    def get_baseline(wildcards):
        if wildcards.variant == study.REFERENCE or not STUDY.has_baseline(probe):
            return []
        return f"{MODEL}/variants/{study.REFERENCE}/{probe}.npz"

    return get_baseline


def get_modification_software(wildcards):
    """Versions of what can change a variant's weights."""
    steps = STUDY.by_slug[wildcards.variant].steps
    own = {
        package
        for step in steps
        for package in getattr(step.plugin.module, "PACKAGES", ())
    }
    return TORCH | software(*own)


def get_modification_sources(wildcards):
    methods = [step.method for step in STUDY.by_slug[wildcards.variant].steps]
    return sources("modify_model.py", "modifications", methods)


def get_modification_data(wildcards):
    """What the steps of a variant read beside the model."""
    folder = MODEL.format(model=wildcards.model)
    return data_of(STUDY.by_slug[wildcards.variant], folder)


def data_of(variant, folder):
    """What the steps of a variant read beside the model in ``folder``."""
    files = [
        f"{folder}/tokens/calibration.{name}.npz" for name in variant.calibrations()
    ]
    files += [
        f"{folder}/gradients/{name}.safetensors" for name in STUDY.gradients_of(variant)
    ]
    if "fit_reference" in variant.needs:
        files += [f"{folder}/tokens/fit.npz", f"{folder}/reference/fit/reference.json"]
    return files + STUDY.given_of(variant)


def get_variant(wildcards):
    return STUDY.by_slug[wildcards.variant]


def get_memory_mb(wildcards, input):
    """Three times the dense checkpoint and 1.5 GB: two models, or one and what is solved for it, and as much again."""
    return get_checkpoints_mb(wildcards.model, 3)


def get_forced_memory_mb(wildcards, input):
    """Room for reference, variant, every other variant that decoders name, and one checkpoint more."""
    return get_checkpoints_mb(wildcards.model, 3 + len(input.others))


def get_checkpoints_mb(model, count):
    """So many dense checkpoints and 1.5 GB; a guess before the base of the model is there."""
    base = Path(MODEL.format(model=model)) / "base"
    size = sum(path.stat().st_size for path in base.glob("*.safetensors"))
    return 1500 + count * size // 10**6 if size else 4000


def every(pattern, variants):
    """``pattern`` for every model and each of ``variants``."""
    return [
        pattern.replace("{model}", model).replace("{variant}", variant)
        for model in STUDY.config["models"]
        for variant in variants
    ]


def get_records():
    """The records of every probe and decoder, for the variants that the config chooses."""
    records = [
        record
        for probe in STUDY.config["probes"]
        for record in every(f"{VARIANT}/{probe}.json", STUDY.chosen(probe))
    ]
    return (
        records
        + [
            record
            for decoder in STUDY.decoding.decoders
            for record in every(
                f"{VARIANT}/text/{decoder.slug()}.json", STUDY.chosen("decoding")
            )
        ]
        + get_task_scores()
    )


def get_modifications():
    """What was achieved of every variant that a probe measures."""
    slugs = {slug for probe in STUDY.config["probes"] for slug in STUDY.chosen(probe)}
    return every(f"{VARIANT}/modification.json", sorted(slugs))


def get_task_scores():
    """The records of the tasks that decoders answer."""
    return [
        record
        for decoder in TASK_DECODERS
        for record in every(
            f"{VARIANT}/decoded_tasks/{decoder}.json", STUDY.chosen("decoding")
        )
    ]


def get_task_baselines(wildcards):
    """What was recorded of the reference, which itself compares with nothing."""
    if wildcards.variant == study.REFERENCE:
        return []
    return [
        f"{MODEL}/variants/{study.REFERENCE}/decoded_tasks/{decoder}.npz"
        for decoder in TASK_DECODERS
    ]


def get_task_sources():
    """The sources of the decoders that answer tasks, with every kind of source if one is built from a text."""
    methods = [STUDY.decoding.decoder(decoder).method for decoder in TASK_DECODERS]
    kinds = fetch.kinds() if STUDY.task_text() else []
    script = "measure_decoded_tasks.py"
    return sorted(
        {
            *sources(script, "decoders", sorted(set(methods))),
            *sources(script, "sources", kinds),
            relative("scripts/hemorrhage/tasks/sandbox_child.py"),
        }
    )


def get_others(decoders):
    """The other variants that decoders read, by their records."""
    slugs = dict.fromkeys(
        slug for decoder in decoders for slug in STUDY.decoding.others_of(decoder)
    )
    return list(slugs), [f"{MODEL}/variants/{slug}/modification.json" for slug in slugs]


def get_others_data(decoders):
    """What the recipes of these variants read, should one have to be followed again."""

    def get_data(wildcards):
        folder = MODEL.format(model=wildcards.model)
        return sorted(
            {
                file
                for slug in get_others(decoders(wildcards))[0]
                for file in data_of(STUDY.by_slug[slug], folder)
            }
        )

    return get_data


def get_texts(suffix):
    """A file of every decoder, for every variant that generates text."""
    return [
        file
        for decoder in STUDY.decoding.decoders
        for file in every(
            f"{VARIANT}/text/{decoder.slug()}.{suffix}", STUDY.chosen("decoding")
        )
    ]


DECODERS = [decoder.slug() for decoder in STUDY.decoding.decoders]
TASK_DECODERS = STUDY.decoding.task_decoders()


def get_own_tables(figure):
    """The tables and published numbers that only one figure reads."""
    tables = [f"{TABLES}/{name}" for name in figure_plan.own_tables(figure)]
    return tables + [relative(file) for file in figure_plan.published_tables(figure)]
