"""What is wrong with a study, in one sentence: where, what, and what is known."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib import metadata
from typing import Any

from hemorrhage import plugins
from hemorrhage.settings import require

DEPTH = frozenset({"num_hidden_layers"})
WIDTHS = frozenset({"hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads", "head_dim"})
OUTDATED = {"widths": WIDTHS, "shapes": WIDTHS | DEPTH, "blocks": DEPTH, "copies": DEPTH}  # by a method's CHANGES


def reason(error: BaseException) -> str:
    """Return the sentence for an error raised while the config was checked.

    Snakemake's ``validate`` prints the whole schema; the jsonschema error inside knows the key and the value.
    """
    cause: Any = error.__context__
    if not hasattr(cause, "json_path"):
        return str(error)
    where = cause.json_path.removeprefix("$").lstrip(".") or "top level"
    if cause.validator != "additionalProperties" or not isinstance(cause.schema.get("properties"), dict):
        return f"{where}: {cause.message}."
    known = list(cause.schema["properties"])
    unknown = next(key for key in cause.instance if key not in known)
    try:
        require(unknown, known, "key")
    except ValueError as sentence:
        return f"{where}: {sentence}"
    return f"{where}: {cause.message}."


def missing(plugin: plugins.Plugin) -> list[str]:
    """Return the packages that a method requires and that are not installed here."""
    return [name for name in getattr(plugin.module, "REQUIRES", ()) if not _is_installed(name)]


def check_packages(variant: str, recipe: Iterable[Mapping[str, Any]]) -> None:
    """Raise ValueError if a step of a recipe needs a package that is not installed in this environment."""
    for step in recipe:
        absent = missing(plugins.get("modifications", step["method"]))
        if absent:
            raise ValueError(
                f"{variant}: {step['method']} works through {' and '.join(absent)}, not installed here; install with "
                f"`pip install {' '.join(absent)}`, or every library of deployment with `make peers`."
            )


def _is_installed(package: str) -> bool:
    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        return False
    return True


def check_recipe(variant: str, recipe: Iterable[Mapping[str, Any]], facts: Mapping[str, int]) -> None:
    """Raise ValueError if a step of a recipe cannot be done to a model with these sizes (``local_config.facts``).

    A size that a step changes is not known behind it, so nothing is refused for it there.
    """
    known = dict(facts)
    for step in recipe:
        plugin = plugins.get("modifications", step["method"])
        refuse = getattr(plugin.module, "refuse", None)
        if refuse is not None and known:
            try:
                refuse(plugin.settings(step["settings"]), known)
            except ValueError as error:
                raise ValueError(f"{variant}: {error}") from None
        outdated = OUTDATED.get(getattr(plugin.module, "CHANGES", ""), frozenset())
        known = {name: size for name, size in known.items() if name not in outdated}
