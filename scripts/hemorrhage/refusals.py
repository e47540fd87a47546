"""One sentence for a refused config: where, what, and what is known."""

from __future__ import annotations

from typing import Any

from hemorrhage.settings import require


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
