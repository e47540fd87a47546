"""The decoders of a study, the prompts they continue, and the other variants that some of them read."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from hemorrhage.planning.variants import Step, expand_steps


@dataclass(frozen=True)
class DecodingPlan:
    """The part ``decoding`` of a config. Raises ValueError for an unknown decoder or setting."""

    section: dict[str, Any]

    @cached_property
    def decoders(self) -> list[Step]:
        """The decoders with their settings, greedy first: it is what the others are compared with."""
        steps = expand_steps("decoders", ["greedy", *self.section["decoders"]])
        return list({step.slug(): step for step in steps}.values())

    def decoder(self, slug: str) -> Step:
        """The decoder with this slug."""
        return next(step for step in self.decoders if step.slug() == slug)

    def settings_of(self, slug: str) -> dict[str, Any]:
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
        path = self.section["prompts"]["path"]
        return [path] if path else []
