"""The editor's copy of the config's schema: the structure, and every method's settings from its dataclass.

Written by ``make schema``; a test fails when it drifts. Snakemake validates against the structure alone, since a
method's own dataclass says better what is wrong with a setting.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import yaml

from hemorrhage import files, plugins

SCHEMAS = plugins.PROJECT / "rules" / "schemas"
TARGET = SCHEMAS / "config.editor.json"


def steps(kind: str) -> dict[str, Any]:
    """Return the schema of one step: a name, or a name with its settings."""
    methods = plugins.found(kind)
    described = {name: _settings(plugin) for name, plugin in methods.items()}
    return {
        "anyOf": [
            {"enum": sorted(methods)},
            {
                "type": "object",
                "minProperties": 1,
                "maxProperties": 1,
                "additionalProperties": False,
                "properties": described,
            },
        ]
    }


def schema() -> dict[str, Any]:
    """Return the whole schema."""
    structure = yaml.safe_load((SCHEMAS / "config.schema.yaml").read_text(encoding="utf8"))
    structure["$defs"]["step"] = steps("modifications")
    structure["$defs"]["decoder"] = steps("decoders")
    structure["properties"]["decoding"]["properties"]["decoders"]["items"] = {"$ref": "#/$defs/decoder"}
    structure["properties"]["probes"]["propertyNames"] = {"enum": sorted(plugins.found("probes"))}
    return structure


def _settings(plugin: plugins.Plugin) -> dict[str, Any]:
    summary = (plugin.module.__doc__ or "").strip().splitlines()[0]
    fields = {field.name: _field(field) for field in dataclasses.fields(plugin.module.Settings)}
    return {"type": ["object", "null"], "description": summary, "additionalProperties": False, "properties": fields}


def _field(field: dataclasses.Field) -> dict[str, Any]:
    """A setting takes one value, or a list that is expanded into variants."""
    described: dict[str, Any] = {"description": f"{field.type}; a list makes one variant for each value."}
    if field.default is not dataclasses.MISSING:
        described["default"] = field.default
    return described


def text() -> str:
    """Return the file's content."""
    return json.dumps(schema(), indent=1, sort_keys=True) + "\n"


if __name__ == "__main__":
    files.write_text(TARGET, text())
    print(f"Wrote {Path(TARGET).name}.")
