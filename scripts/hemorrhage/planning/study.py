"""One config file as a study: models x variants x decoders x probes x thresholds.

Everything a rule asks of the config is answered here and in the plans beside it, by tested functions; what is wrong
with it and can be known before a model is loaded is refused by ``study_checks``. Only the standard library is used:
the Snakefile is parsed with it.
"""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from hemorrhage import plugins
from hemorrhage.planning import study_checks
from hemorrhage.planning.decoding_plan import TEXT_TASKS, DecodingPlan
from hemorrhage.planning.token_plan import TokenPlan
from hemorrhage.planning.variants import REFERENCE, Variant, expand
from hemorrhage.settings import require

LOCAL = "path:"
ASKED = ("names", "items", "few_shot", "new_tokens", "run_code")


@dataclass(frozen=True)
class Study:
    """A validated config. Raises ValueError naming the key, the value and what is allowed."""

    config: dict[str, Any]
    variants: list[Variant] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "variants", expand(self.config["variants"]))
        study_checks.check(self)

    @cached_property
    def tokens(self) -> TokenPlan:
        """The token sets."""
        return TokenPlan(self.config)

    @cached_property
    def decoding(self) -> DecodingPlan:
        """The decoders and prompts."""
        return DecodingPlan(self.config["decoding"])

    @cached_property
    def by_slug(self) -> dict[str, Variant]:
        """The variants by slug."""
        return {variant.slug: variant for variant in self.variants}

    def chosen(self, probe: str) -> list[str]:
        """The slugs of the variants that ``probe`` (or "decoding", "speed") measures; the reference is always one."""
        own = probe in ("decoding", "speed")
        section = self.config.get(probe, {"variants": []}) if own else self.config["probes"][probe]
        if (probe == "decoding" and not section["decoders"]) or (probe == "speed" and not section["variants"]):
            return []
        patterns = section["variants"]
        slugs = list(self.by_slug)
        for pattern in patterns:
            if not fnmatch.filter(slugs, pattern):
                require(pattern, slugs, f"variant in {probe}")
        return [
            slug
            for slug in slugs
            if slug == REFERENCE or any(fnmatch.fnmatchcase(slug, pattern) for pattern in patterns)
        ]

    def probe(self, name: str) -> dict[str, Any]:
        """A probe as builtin values: its name, its settings, and the source of the text that it reads, if any."""
        plugin, values = plugins.get("probes", name), self.config["probes"][name]["settings"]
        settings, text = plugin.settings(values), None
        if getattr(plugin.module, "TEXTS", False):
            chosen = settings.text or self.config["tokens"]["evaluation"]["text"]  # type: ignore[attr-defined]
            require(chosen, self.config["texts"], f"text in probes.{name}.settings")
            text = self.config["texts"][chosen]
        return {"name": name, "settings": values, "text": text}

    def task_text(self) -> dict[str, Any] | None:
        """The text that tasks of the decoders are built from, None if none is."""
        if not set(self.decoding.task_names) & set(TEXT_TASKS):
            return None
        chosen = self.config["decoding"]["tasks"]["text"] or self.config["tokens"]["evaluation"]["text"]
        require(chosen, self.config["texts"], "text in decoding.tasks")
        return self.config["texts"][chosen]

    def decoded_tasks(self) -> dict[str, Any]:
        """The tasks of the decoders as builtin values."""
        asked = {key: self.config["decoding"]["tasks"][key] for key in ASKED}
        seeds = {"seed": self.config["seed"], "seeds": self.config["decoding"]["seeds"]}
        return {**asked, **seeds, "text": self.task_text()}

    def probe_packages(self, name: str) -> list[str]:
        """Further packages that can change a probe's numbers."""
        return list(getattr(plugins.get("probes", name).module, "PACKAGES", ()))

    def has_baseline(self, name: str) -> bool:
        """Whether a probe compares with what it recorded of the reference."""
        return bool(getattr(plugins.get("probes", name).module, "BASELINE", False))

    def seen_by_modifications(self, name: str, folder: str) -> list[str]:
        """The files of the token sets that modifications see, if a probe must not take their articles."""
        return self.seen_sets(folder) if self.probe(name)["text"] else []

    def seen_sets(self, folder: str) -> list[str]:
        """The files of the token sets that modifications see."""
        return [f"{folder}/{key}.npz" for key in self.tokens.sets if key != "evaluation"]

    def gradients_of(self, variant: Variant) -> list[str]:
        """Names (``set.norm``) of the gradients that a variant reads."""
        names = {
            f"calibration.{dict(step.settings)['calibration']}.{dict(step.settings)['norm']}"
            for step in variant.steps
            if "gradients" in step.plugin.module.NEEDS
        }
        return sorted(names)

    def given_of(self, variant: Variant) -> list[str]:
        """Local paths of ready checkpoints that a variant starts from."""
        paths = [str(dict(step.settings).get("path", "")) for step in variant.steps if step.method == "given"]
        return sorted(path.removeprefix(LOCAL) for path in paths if Path(path.removeprefix(LOCAL)).exists())

    def exported(self) -> list[str]:
        """The variants that `snakemake export --config variant=…` keeps; separated by commas."""
        slugs = [slug for slug in str(self.config.get("variant") or "").split(",") if slug]
        for slug in slugs:
            require(slug, self.by_slug, "variant to export")
        return slugs

    def trusted(self, model: str) -> list[str]:
        """What a model may bring beside plain weights: "pickles", "remote_code"."""
        return sorted(key for key, names in self.config["trust"].items() if model in names)

    def methods(self) -> list[str]:
        """The modifications that the study uses."""
        return sorted({step.method for variant in self.variants for step in variant.steps})

    def grid(self) -> dict[str, Any]:
        """What tables and thresholds need to know of the variants, as builtin values."""
        modules = {method: plugins.get("modifications", method).module for method in self.methods()}
        return {
            "variants": {
                variant.slug: {
                    "family": variant.family,
                    "method": "+".join(step.method for step in variant.steps),
                    "sweeps": [list(sweep) for sweep in variant.sweeps()],
                }
                for variant in self.variants
            },
            "axes": {method: vars(module.AXIS) for method, module in modules.items() if module.AXIS},
            "repairs": {method: list(module.REPAIRS) for method, module in modules.items()},
            "leaves_reference": [
                name for name, module in modules.items() if getattr(module, "LEAVES_REFERENCE", False)
            ],
            "recipes": {variant.slug: variant.recipe for variant in self.variants},
            "calibrations": self.tokens.calibrations(),
            "evaluation_text": self.config["tokens"]["evaluation"]["text"],
        }
