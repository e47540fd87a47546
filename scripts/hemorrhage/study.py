"""One config file as a study: models x variants x decoders x probes x thresholds.

Everything a rule asks of the config is answered here by tested functions, and everything that is wrong with it and
can be known before a model is loaded is refused here. Only the standard library is used: the Snakefile is parsed
with it.
"""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from hemorrhage import plugins, refusals
from hemorrhage.local_config import facts
from hemorrhage.protocol import Protocol
from hemorrhage.settings import require
from hemorrhage.sources import fetch
from hemorrhage.variants import REFERENCE, Step, Variant, expand, expand_steps

LOCAL = "path:"
DECODING_FIGURES = ("decoding", "divergence", "amplification", "published_decoding")
OWN_TABLES = {"divergence": ["divergence"], "protocols": ["protocols"]}
PUBLISHED = {"published_decoding": ["resources/published/paper_decoding.tsv"]}
DISTANCES = ("kl", "kl_reverse", "delta_nll", "jensen_shannon", "total_variation")


@dataclass(frozen=True)
class Study:
    """A validated config. Raises ValueError naming the key, the value and what is allowed."""

    config: dict[str, Any]
    variants: list[Variant] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "variants", expand(self.config["variants"]))
        self._check_texts()
        self._check_calibrations()
        self._check_models()
        self._check_variants()
        for probe in self.config["probes"]:
            self.probe(probe)
        _ = self.protocol, self.decoders, self.exported(), self.protocol_plans()
        self._check_criteria()
        for decoder in self.decoders:
            for other in self.others_of(decoder.slug()):
                require(other, self.by_slug, f"variant in decoding.decoders.{decoder.method}")
        for path in self.prompt_files():
            if not Path(path).is_file():
                raise ValueError(f"decoding.prompts.path: '{path}' does not exist.")
        for probe in [*self.config["probes"], "decoding"]:
            self.chosen(probe)

    @cached_property
    def by_slug(self) -> dict[str, Variant]:
        """The variants by slug."""
        return {variant.slug: variant for variant in self.variants}

    @cached_property
    def protocol(self) -> Protocol:
        """The protocol of the evaluation windows."""
        return Protocol.of(self.config["protocol"], dtype=self.config["dtype"])

    def protocol_plans(self) -> dict[str, dict[str, Any]]:
        """Every protocol under which the unmodified models are measured too: name -> text, windows, protocol.

        Each scores about as many tokens as the evaluation windows, in at least two windows.
        """
        evaluation, own = self.config["tokens"]["evaluation"], self._window("evaluation", self.token_sets["evaluation"])
        plans = {}
        for asked in self.config.get("protocols", []):
            chosen = self._protocol_of(asked)
            windows: int | str = evaluation["windows"]
            if isinstance(windows, int):
                room = windows * own.window - chosen.window
                windows = max(2, room // int(chosen.stride or chosen.window) + 1)
            name = asked if isinstance(asked, str) else chosen.slug
            plans[name] = {"text": evaluation["text"], "windows": windows, "protocol": chosen.as_dict()}
        return plans

    def _protocol_of(self, asked: str | dict[str, Any]) -> Protocol:
        try:
            if isinstance(asked, str):
                return Protocol.of(asked, dtype=self.config["dtype"])
            return Protocol.of(self.protocol.as_dict(), **{"stride": None, **asked})
        except ValueError as error:
            raise ValueError(f"protocols, {asked}: {error}") from None

    @cached_property
    def decoders(self) -> list[Step]:
        """The decoders with their settings, greedy first: it is what the others are compared with."""
        steps = expand_steps("decoders", ["greedy", *self.config["decoding"]["decoders"]])
        return list({step.slug(): step for step in steps}.values())

    def chosen(self, probe: str) -> list[str]:
        """The slugs of the variants that ``probe`` (or "decoding") measures; the reference is always one."""
        section = self.config["decoding"] if probe == "decoding" else self.config["probes"][probe]
        if probe == "decoding" and not section["decoders"]:
            return []
        patterns = section["variants"]
        slugs = list(self.by_slug)
        for pattern in patterns:
            if not fnmatch.filter(slugs, pattern):
                require(pattern, slugs, f"variant in {probe}")
        return [slug for slug in slugs
                if slug == REFERENCE or any(fnmatch.fnmatchcase(slug, pattern) for pattern in patterns)]

    def probe(self, name: str) -> dict[str, Any]:
        """A probe as builtin values: its name, its settings, and the source of the text that it reads, if any."""
        plugin, values = plugins.get("probes", name), self.config["probes"][name]["settings"]
        settings, text = plugin.settings(values), None
        if getattr(plugin.module, "TEXTS", False):
            chosen = settings.text or self.config["tokens"]["evaluation"]["text"]  # type: ignore[attr-defined]
            require(chosen, self.config["texts"], f"text in probes.{name}.settings")
            text = self.config["texts"][chosen]
        return {"name": name, "settings": values, "text": text}

    def probe_packages(self, name: str) -> list[str]:
        """Further packages that can change a probe's numbers."""
        return list(getattr(plugins.get("probes", name).module, "PACKAGES", ()))

    def has_baseline(self, name: str) -> bool:
        """Whether a probe compares with what it recorded of the reference."""
        return bool(getattr(plugins.get("probes", name).module, "BASELINE", False))

    def seen_by_modifications(self, name: str, folder: str) -> list[str]:
        """The files of the token sets that modifications see, if a probe must not take their articles."""
        sets = [key for key in self.token_sets if key != "evaluation"] if self.probe(name)["text"] else []
        return [f"{folder}/{key}.npz" for key in sets]

    @cached_property
    def token_sets(self) -> dict[str, dict[str, Any]]:
        """The token sets of the config by the name that their files have."""
        tokens = self.config["tokens"]
        first = {name: tokens[name] for name in ("evaluation", "fit") if name in tokens}
        return {**first, **{f"calibration.{key}": value for key, value in tokens["calibration"].items()}}

    def token_specs(self, name: str) -> dict[str, dict[str, Any]]:
        """The specifications of token set ``name`` and of all sets that choose their articles before it."""
        sets = self.token_sets
        before = [key for key in ("evaluation", "fit") if key in sets and name != "evaluation"]
        return {key: {**sets[key], "protocol": self._window(key, sets[key]).as_dict()}
                for key in dict.fromkeys([*before, name])}

    def texts_of(self, name: str) -> dict[str, dict[str, Any]]:
        """The text sources that token set ``name`` and the sets before it read."""
        used = {spec["text"] for spec in self.token_specs(name).values()}
        return {text: self.config["texts"][text] for text in sorted(used)}

    def gradients_of(self, variant: Variant) -> list[str]:
        """Names (``set.norm``) of the gradients that a variant reads."""
        names = {f"calibration.{dict(step.settings)['calibration']}.{dict(step.settings)['norm']}"
                 for step in variant.steps if "gradients" in step.plugin.module.NEEDS}
        return sorted(names)

    def given_of(self, variant: Variant) -> list[str]:
        """Local paths of ready checkpoints that a variant starts from."""
        paths = [str(dict(step.settings).get("path", "")) for step in variant.steps if step.method == "given"]
        return sorted(path.removeprefix(LOCAL) for path in paths if Path(path.removeprefix(LOCAL)).exists())

    def decoder(self, slug: str) -> Step:
        """The decoder with this slug."""
        return next(step for step in self.decoders if step.slug() == slug)

    def decoder_settings(self, slug: str) -> dict[str, Any]:
        """The decoder with this slug as builtin values."""
        step = self.decoder(slug)
        return {"name": step.method, "settings": dict(step.settings)}

    def others_of(self, slug: str) -> list[str]:
        """The slugs of the other variants that a decoder reads: a weaker model, a draft."""
        step = self.decoder(slug)
        name = getattr(step.plugin.module, "OTHER", None)
        return [str(dict(step.settings)[name])] if name else []

    def prompt_files(self) -> list[str]:
        """The file of prompts, if the config names one."""
        path = self.config["decoding"]["prompts"]["path"]
        return [path] if path else []

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
            "variants": {variant.slug: {
                "family": variant.family,
                "method": "+".join(step.method for step in variant.steps),
                "sweeps": [list(sweep) for sweep in variant.sweeps()],
            } for variant in self.variants},
            "axes": {method: vars(module.AXIS) for method, module in modules.items() if module.AXIS},
            "repairs": {method: list(module.REPAIRS) for method, module in modules.items()},
            "recipes": {variant.slug: variant.recipe for variant in self.variants},
        }

    def figures(self) -> dict[str, dict[str, str]]:
        """The figures of this study: file stem -> name of the plug-in and, for a family's figure, the family."""
        families = dict.fromkeys(variant.family for variant in self.variants if variant.slug != REFERENCE)
        found = {"overview": {"name": "overview"}}
        found |= {f"family_{family}": {"name": "family", "family": family} for family in families}
        if any(step.plugin.module.REPAIRS for variant in self.variants for step in variant.steps):
            found["mitigations"] = {"name": "mitigations"}
        if self.chosen("decoding"):
            found |= {name: {"name": name} for name in DECODING_FIGURES}
        drawn = plugins.found("figures")  # a probe may have a figure of its own, under its name
        found |= {probe: {"name": probe} for probe in self.config["probes"] if probe in drawn}
        if "attention" in self.config["probes"]:
            found["disruption"] = {"name": "disruption"}
        if self.protocol_plans():
            found["protocols"] = {"name": "protocols", "own": self.protocol.slug}
        return found

    def own_tables(self, figure: str) -> list[str]:
        """The tables that only one figure reads."""
        return OWN_TABLES.get(figure, [])

    def published_tables(self, figure: str) -> list[str]:
        """The files of published numbers that a figure reads."""
        return PUBLISHED.get(figure, [])

    def _window(self, name: str, spec: dict[str, Any]) -> Protocol:
        """The protocol of one token set: the evaluation's, with the window and joining that the set names."""
        own: dict[str, Any] = {key: spec[key] for key in ("window", "joining") if key in spec}
        if own or name.startswith("calibration"):
            own["stride"] = None  # windows of another length or joining do not overlap
        if own.get("joining") == "article":
            own["tail"] = "drop"
        return Protocol.of(self.protocol.as_dict(), **own)

    def _check_texts(self) -> None:
        for name, spec in self.token_sets.items():
            require(spec["text"], self.config["texts"], f"text in tokens.{name}")
        for name, text in self.config["texts"].items():
            _check_source(f"texts.{name}.source", text["source"])

    def _check_criteria(self) -> None:
        for name, criterion in self.config["thresholds"]["criteria"].items():
            if "relative" in criterion and criterion["metric"] in DISTANCES:
                raise ValueError(f"thresholds.criteria.{name}: '{criterion['metric']}' is 0 for the reference, so "
                                 "nothing is relative to it; give `at` instead of `relative`.")
            if "probe" in criterion:
                require(criterion["probe"], self.config["probes"], f"probe in thresholds.criteria.{name}")

    def _check_calibrations(self) -> None:
        for variant in self.variants:
            for name in variant.calibrations():
                require(name, self.config["tokens"]["calibration"], f"calibration set of {variant.slug}")
            if "fit_reference" in variant.needs:
                require("fit", self.token_sets, f"token set needed by {variant.slug}")

    def _check_models(self) -> None:
        for name, model in self.config["models"].items():
            _check_source(f"models.{name}.source", model["source"])

    def _check_variants(self) -> None:
        """What a local config.json can tell: a width that a group does not divide, more blocks than there are."""
        known = {name: facts(model["source"].removeprefix(LOCAL)) for name, model in self.config["models"].items()
                 if model["source"].startswith(LOCAL)}
        for variant in self.variants:
            for name, found in known.items():
                refusals.check_recipe(f"{variant.slug} on model {name}", variant.recipe, found)


def _check_source(key: str, source: str) -> None:
    """Refuse a source of an unknown kind or form, or a local one that is missing."""
    try:
        fetch.check(source)
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from None
