"""Finding the plug-ins: one file each, found by walking the package, nothing else to edit.

A *modification* is a file in ``modifications/<family>/``. It defines

- a docstring: what it does, what it costs, its paper;
- ``NEEDS``: a frozenset of ``"calibration"``, ``"gradients"``, ``"fit_reference"``;
- ``Settings``: a frozen dataclass whose ``__post_init__`` validates with the helpers of ``settings.py``;
- ``AXIS``: a ``settings.Axis``, or None if the method has no graded damage;
- ``NEUTRAL``: settings (a dict) that must leave the logits bit-equal, or None;
- ``EXAMPLE``: settings (a dict) for the contract test;
- ``REPAIRS``: names of the methods it mitigates; ``("*",)`` marks a step that is added to any variant;
- ``apply(model, settings, data) -> dict``: changes the model in place and returns what was achieved; a method that
  changes the list of blocks returns ``layer_map`` as well: for each block the one before this step that it copies.

It may define

- ``CHANGES``: what its example changes, for the contract test: "targets" (the default), "norms", "routers", "config"
  (no weight), "blocks" (a rearranged list of unchanged blocks), "copies" (one whose new blocks differ from what they
  copy), "widths" (matrices that lost whole rows and columns, and biases of matrices) or "shapes" (other weights
  altogether);
- ``PACKAGES``: names of further packages that can change its weights;
- ``REQUIRES``: those of them that it cannot do without and a plain environment may lack; a study is refused without;
- ``LOSSLESS = True``: its example leaves the logits bit-equal too;
- ``LEAVES_REFERENCE = True``: added to the unmodified model it changes nothing, so the curve of another step that it is
  added to starts at the reference; without it, a curve has a harmless end only if this step was measured alone;
- ``TOLERANCE``: by how much ``NEUTRAL`` may move the logits, where the same sum is made in another order;
- ``unsuited(model) -> str | None``: the sentence with which it refuses an architecture, None if it serves it.

It may define ``refuse(settings, facts)``, which raises ValueError for what a local config.json can tell, and, if it
brings weights of its own, ``load(settings, data) -> model`` and ``identify(settings) -> str``, a digest of them. One
that stands for a format of deployment defines ``pack(model, settings, data, folder)``, which writes the packed
checkpoint of the model as it is; its ``apply`` measures that file (``methods/packing.py``), and ``snakemake export``
keeps it.

A *decoder* is a file in ``decoders/``, a *probe* a file in ``probes/``, a *figure* a file in ``figures/``; the
docstrings of ``generation.py``, ``probing.py`` and ``plotting.py`` say what they define. Torch is imported inside
functions: the modules are imported while the Snakefile is parsed.
"""

from __future__ import annotations

import dataclasses
import importlib
from functools import cache
from pathlib import Path
from types import ModuleType

from hemorrhage import settings

PACKAGE = Path(__file__).resolve().parent
PROJECT = PACKAGE.parent.parent  # where resources/, rules/ and docs/ are


@dataclasses.dataclass(frozen=True)
class Plugin:
    """One discovered file.

    Attributes:
        kind: "modifications", "decoders", "probes", "figures" or "sources".
        name: the file's stem.
        family: the name of its folder; the kind itself where there are no folders.
        path: the file.
    """

    kind: str
    name: str
    family: str
    path: Path

    @property
    def module(self) -> ModuleType:
        """The imported module."""
        parts = self.path.relative_to(PACKAGE.parent).with_suffix("").parts
        return importlib.import_module(".".join(parts))

    def settings(self, values: dict[str, object]) -> object:
        """Return the module's validated ``Settings``; raises ValueError naming the method and the setting."""
        fields = [field.name for field in dataclasses.fields(self.module.Settings)]
        try:
            for key in values:
                settings.require(key, fields, "setting")
            return self.module.Settings(**values)
        except (TypeError, ValueError) as error:
            text = str(error).replace("Settings.__init__() ", "")
            raise ValueError(f"{self.name}: {text}") from None


@cache
def found(kind: str) -> dict[str, Plugin]:
    """Return every plug-in of a kind by name. Raises ValueError if two files share a name."""
    plugins: dict[str, Plugin] = {}
    for path in sorted((PACKAGE / kind).rglob("*.py")):
        if path.stem.startswith("_"):
            continue
        plugin = Plugin(kind, path.stem, path.parent.name, path)
        if plugin.name in plugins:
            raise ValueError(f"{path} and {plugins[plugin.name].path} share the name '{plugin.name}'.")
        plugins[plugin.name] = plugin
    return plugins


def get(kind: str, name: str) -> Plugin:
    """Return the plug-in; raises ValueError with the nearest known name."""
    settings.require(name, found(kind), kind.removesuffix("s"))
    return found(kind)[name]


def summaries(kind: str) -> dict[str, str]:
    """Return the first sentence of every plug-in's docstring by name."""
    heads = {name: (plugin.module.__doc__ or "").split("\n\n")[0] for name, plugin in found(kind).items()}
    return {name: " ".join(head.split()).split(". ")[0].rstrip(".") + "." for name, head in heads.items()}
