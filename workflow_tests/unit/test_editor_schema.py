"""The editor's schema is the one that the dataclasses give; `make schema` writes it."""

from hemorrhage.planning import editor_schema


def test_the_committed_schema_has_not_drifted():
    assert editor_schema.TARGET.read_text(encoding="utf8") == editor_schema.text(), "run `make schema`"


def test_every_key_of_the_config_is_described():
    def undescribed(schema, where):
        for name, entry in schema.get("properties", {}).items():
            if "description" not in entry:
                yield f"{where}.{name}"
            yield from undescribed(entry, f"{where}.{name}")

    structure = editor_schema.schema()
    assert list(undescribed(structure, "config")) == []
