"""The decoders of a study, the prompts they continue, and the other variants that some of them read."""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from hemorrhage.planning.variants import Step, expand_steps
from hemorrhage.settings import require

GREEDY = "greedy"
TEXT_TASKS = ("facts",)  # built from a text of the study
CODE_TASKS = ("mbpp",)  # answered by programs
CODE_MARK = "unsafe_code: true"  # how lm-eval's form says the same
LOCAL = "local:"


@dataclass(frozen=True)
class DecodingPlan:
    """The part ``decoding`` of a config. Raises ValueError for an unknown decoder or setting."""

    section: dict[str, Any]

    @cached_property
    def decoders(self) -> list[Step]:
        """The decoders with their settings, greedy first: it is what the others are compared with."""
        steps = expand_steps("decoders", [GREEDY, *self.section["decoders"]])
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

    @property
    def task_names(self) -> list[str]:
        """The tasks that decoders answer."""
        return list(self.section["tasks"]["names"])

    def task_decoders(self) -> list[str]:
        """The slugs of the decoders that answer them, greedy first; none without tasks.

        Raises ValueError for a pattern that no decoder has.
        """
        if not self.task_names:
            return []
        slugs = [step.slug() for step in self.decoders]
        patterns = self.section["tasks"]["decoders"]
        for pattern in patterns:
            if not fnmatch.filter(slugs, pattern):
                require(pattern, slugs, "decoder in decoding.tasks.decoders")
        return [
            slug for slug in slugs if slug == GREEDY or any(fnmatch.fnmatchcase(slug, pattern) for pattern in patterns)
        ]

    def task_files(self) -> list[str]:
        """The files of local tasks: a definition, or all of its folder."""
        paths = [Path(name.removeprefix(LOCAL)) for name in self.task_names if name.startswith(LOCAL)]
        files = [file for path in paths for file in (sorted(path.rglob("*")) if path.is_dir() else [path])]
        return [str(file) for file in files if file.is_file()]

    def code_tasks(self) -> list[str]:
        """The tasks that are answered by programs, as far as their names and definitions tell."""
        files = [Path(file) for file in self.task_files() if file.endswith((".yaml", ".yml"))]
        marked = [str(file) for file in files if CODE_MARK in file.read_text(encoding="utf8", errors="replace")]
        return [name for name in self.task_names if name in CODE_TASKS] + marked
