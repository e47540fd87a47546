"""What is wrong with a study and can be known before a model is loaded, refused in one sentence each."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from hemorrhage.planning import refusals
from hemorrhage.planning.decoding_plan import LOCAL as TASK_FILES
from hemorrhage.planning.local_config import facts
from hemorrhage.settings import require
from hemorrhage.sources import fetch

if TYPE_CHECKING:
    from hemorrhage.planning.study import Study

LOCAL = "path:"
BASE = "results/models/{model}/base"
DISTANCES = ("kl", "kl_reverse", "delta_nll", "jensen_shannon", "total_variation")


def check(study: Study) -> None:
    """Raise ValueError for the first thing that is wrong."""
    _sources(study)
    _calibrations(study)
    _variants(study)
    _packages(study)
    for probe in study.config["probes"]:
        study.probe(probe)
    _ = study.tokens.protocol, study.exported(), study.tokens.protocol_plans()
    _criteria(study)
    _decoding(study)
    for probe in [*study.config["probes"], "decoding", "speed"]:
        study.chosen(probe)


def _sources(study: Study) -> None:
    """Unknown texts, too few windows, sources of an unknown kind or form, and local ones that are missing."""
    for name, spec in study.tokens.sets.items():
        require(spec["text"], study.config["texts"], f"text in tokens.{name}")
    if study.tokens.sets["evaluation"].get("windows") == 1:
        raise ValueError(
            "tokens.evaluation.windows: 1 gives nothing to resample, so no result would have an interval; give at "
            "least 2, better 16."
        )
    for section in ("texts", "models"):
        for name, entry in study.config[section].items():
            try:
                fetch.check(entry["source"])
            except ValueError as error:
                raise ValueError(f"{section}.{name}.source: {error}") from None


def _calibrations(study: Study) -> None:
    for variant in study.variants:
        for name in variant.calibrations():
            require(name, study.config["tokens"]["calibration"], f"calibration set of {variant.slug}")
        if "fit_reference" in variant.needs:
            require("fit", study.tokens.sets, f"token set needed by {variant.slug}")


def _variants(study: Study) -> None:
    """What a config.json tells: a width that a group does not divide, more blocks than there are.

    It is known for a local model, and for every model whose base is there already.
    """
    for name, model in study.config["models"].items():
        source = model["source"]
        sizes = facts(source.removeprefix(LOCAL) if source.startswith(LOCAL) else BASE.format(model=name))
        for variant in study.variants:
            refusals.check_recipe(f"{variant.slug} on model {name}", variant.recipe, sizes)


def _packages(study: Study) -> None:
    """Libraries that a method works through; where torch is absent, jobs run in another environment than this one."""
    if importlib.util.find_spec("torch") is None:
        return
    for variant in study.variants:
        refusals.check_packages(variant.slug, variant.recipe)


def _criteria(study: Study) -> None:
    for name, criterion in study.config["thresholds"]["criteria"].items():
        if "relative" in criterion and criterion["metric"] in DISTANCES:
            raise ValueError(
                f"thresholds.criteria.{name}: '{criterion['metric']}' is 0 for the reference, so "
                "nothing is relative to it; give `at` instead of `relative`."
            )
        if "probe" in criterion:
            require(criterion["probe"], study.config["probes"], f"probe in thresholds.criteria.{name}")


def _decoding(study: Study) -> None:
    for decoder in study.decoding.decoders:
        for other in study.decoding.others_of(decoder.slug()):
            require(other, study.by_slug, f"variant in decoding.decoders.{decoder.method}")
    for path in study.decoding.prompt_files():
        if not Path(path).is_file():
            raise ValueError(f"decoding.prompts.path: '{path}' does not exist.")
    _decoded_tasks(study)


def _decoded_tasks(study: Study) -> None:
    """Tasks that decoders cannot answer, or programs that nobody has allowed."""
    plan, section = study.decoding, study.config["decoding"]["tasks"]
    if plan.task_names and not study.config["decoding"]["decoders"]:
        raise ValueError("decoding.tasks: they are answered by the decoders of `decoding.decoders`; name one.")
    _ = plan.task_decoders(), study.task_text()
    for name in plan.task_names:
        if name.startswith(TASK_FILES) and not Path(name.removeprefix(TASK_FILES)).exists():
            raise ValueError(f"decoding.tasks.names: '{name}' names a file or folder that does not exist.")
    if plan.code_tasks() and not section["run_code"]:
        raise ValueError(
            f"decoding.tasks: {plan.code_tasks()[0]} is answered by programs that the model writes; set "
            "`run_code: true` to run them in a sandbox, or leave the task out."
        )
