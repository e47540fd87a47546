"""The grid: from the config's ``variants`` to variants, their slugs, sweeps, arms and levels.

An entry of the config is one step or a list of steps; a step is ``method``, or ``method: {setting: value or list}``.
Every list is expanded. A variant's slug is ``method_setting~value_setting~value`` per step, joined by ``+``, with
the settings that the config names, in the order of the method's ``Settings``; ``magnitude_sparsity~0.5+rtn_bits~4``.
The config's ``decoders`` are written and expanded the same way, one step each: ``temperature_temperature~0.7``.

Only the standard library is used: this is imported while the Snakefile is parsed.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Iterable
from typing import TypeVar

from hemorrhage import plugins
from hemorrhage.settings import canonical

SLUG = re.compile(r"^[A-Za-z0-9_.~+-]+$")
LONGEST = 200  # a file name holds 255 bytes; logs and temporary names need some
REFERENCE = "identity"
T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Step:
    """One modification, or one decoder, with its settings.

    Attributes:
        method: name of the modification or decoder.
        named: the settings that the config names, in the order of ``Settings``; they make the slug.
        settings: all settings, defaults included; they make the recipe.
        kind: "modifications" or "decoders".
    """

    method: str
    named: tuple[tuple[str, object], ...]
    settings: tuple[tuple[str, object], ...]
    kind: str = "modifications"

    @property
    def plugin(self) -> plugins.Plugin:
        """The plug-in behind the name."""
        return plugins.get(self.kind, self.method)

    @property
    def axis(self) -> str | None:
        """The name of the setting that grows the damage, or None."""
        return self.plugin.module.AXIS.setting if self.plugin.module.AXIS else None

    @property
    def level(self) -> object:
        """The place on the axis, or None."""
        return dict(self.settings).get(self.axis) if self.axis else None

    def slug(self, star: bool = False) -> str:
        """The step's part of the slug; with ``star`` the level is written ``*``."""
        named = [(key, value) for key, value in self.named if not (star and key == self.axis)]
        if star and self.axis:
            named.append((self.axis, "*"))
            named.sort(key=lambda pair: [key for key, _ in self.settings].index(pair[0]))
        return "_".join([self.method, *(f"{key}~{_word(value)}" for key, value in named)])


@dataclasses.dataclass(frozen=True)
class Variant:
    """One or more steps, in order."""

    steps: tuple[Step, ...]

    @property
    def slug(self) -> str:
        """The variant's name in paths and tables."""
        return "+".join(step.slug() for step in self.steps)

    @property
    def recipe(self) -> list[dict[str, object]]:
        """The variant as builtin values: what ``modify_model`` follows and what the cache key holds."""
        return [{"method": step.method, "settings": dict(step.settings)} for step in self.steps]

    @property
    def needs(self) -> set[str]:
        """What the steps need: calibration, gradients, fit_reference."""
        return set().union(*(step.plugin.module.NEEDS for step in self.steps))

    @property
    def family(self) -> str:
        """The folder of the method, of the first step that is not a mitigation of any step."""
        plain = [step for step in self.steps if "*" not in step.plugin.module.REPAIRS]
        return (plain or list(self.steps))[0].plugin.family

    def sweeps(self) -> list[tuple[str, str, object]]:
        """Return (sweep, arm, level) for every step that has an axis.

        A sweep walks the axis of one step; its name is the slug with ``*`` for the level. The arm is what stays.
        """
        result = []
        for place, step in enumerate(self.steps):
            if step.axis is None:
                continue
            sweep = "+".join(s.slug(star=i == place) for i, s in enumerate(self.steps))
            others = [s.slug() for i, s in enumerate(self.steps) if i != place]
            fixed = [f"{key}~{_word(value)}" for key, value in step.named if key != step.axis]
            result.append((sweep, "+".join(["_".join([step.method, *fixed]), *others]), step.level))
        return result

    def calibrations(self) -> list[str]:
        """The names of the calibration sets that the steps read."""
        names = [dict(step.settings).get("calibration") for step in self.steps]
        return sorted({str(name) for name in names if name is not None})


def expand(entries: Iterable[object]) -> list[Variant]:
    """Return the variants of the config, ``identity`` first, each once, in the config's order.

    Raises ValueError for an unknown method or setting, a value out of range, a slug that no path can hold, or two
    variants that would share a slug.
    """
    variants = {REFERENCE: Variant((_step(REFERENCE, {}),))}
    for entry in entries:
        steps = entry if isinstance(entry, list) else [entry]
        for chosen in itertools.product(*(_choices(step) for step in steps)):
            variant = Variant(tuple(_step(method, dict(values)) for method, values in chosen))
            _add(variants, variant.slug, variant, "variant")
    return list(variants.values())


def expand_steps(kind: str, entries: Iterable[object]) -> list[Step]:
    """Return single steps of a kind (the config's decoders), each once, in the config's order.

    Raises ValueError as ``expand`` does.
    """
    steps: dict[str, Step] = {}
    for entry in entries:
        for method, values in _choices(entry):
            step = _step(method, dict(values), kind)
            _add(steps, step.slug(), step, kind.removesuffix("s"))
    return list(steps.values())


def _choices(step: object) -> list[tuple[str, tuple[tuple[str, object], ...]]]:
    """Every (method, settings) that one step of the config stands for."""
    if isinstance(step, str):
        step = {step: {}}
    if not isinstance(step, dict) or len(step) != 1 or not isinstance(next(iter(step.values())) or {}, dict):
        raise ValueError(f"{step!r}: a step is a name, or one name with its settings: `name: {{setting: value}}`.")
    method, values = next(iter(step.items()))
    lists = [
        [(key, value) for value in (given if isinstance(given, list) else [given])]
        for key, given in (values or {}).items()
    ]
    return [(method, chosen) for chosen in itertools.product(*lists)]


def _step(method: str, values: dict[str, object], kind: str = "modifications") -> Step:
    settings = plugins.get(kind, method).settings(values)
    every = {field.name: canonical(getattr(settings, field.name)) for field in dataclasses.fields(settings)}  # type: ignore[arg-type]
    named = tuple((key, value) for key, value in every.items() if key in values)
    return Step(method, named, tuple(every.items()), kind)


def _word(value: object) -> str:
    """A setting's value as it stands in a slug; a path becomes its last part."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = str(value)
    return text.rstrip("/").rsplit("/", 1)[-1] if "/" in text else text.replace(":", "-")


def _add(found: dict[str, T], slug: str, new: T, what: str) -> None:
    """Put ``new`` under its slug; raises ValueError if no path can hold the slug or it already names another one."""
    if not SLUG.match(slug):
        raise ValueError(f"{what} '{slug}': only letters, digits and . _ ~ + - can stand in a name.")
    if len(slug) > LONGEST:
        raise ValueError(f"{what} '{slug}': {len(slug)} characters; at most {LONGEST} fit into a path.")
    if found.setdefault(slug, new) != new:
        raise ValueError(f"{what} '{slug}': two entries with other settings share this name.")
