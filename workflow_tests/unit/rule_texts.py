"""The rules as they are written, whatever a config leaves of them."""

import re
from pathlib import Path

from hemorrhage import plugins

ROOT = Path(__file__).resolve().parents[2]


def texts():
    """The text of every rule by its name; a rule of every probe stands under each of their names."""
    found = {}
    for file in sorted((ROOT / "rules").glob("*.smk")):
        _, *parts = re.split(r"^ *rule(?= \w+:|:)", file.read_text(encoding="utf8"), flags=re.MULTILINE)
        for part in parts:
            name = re.search(r'^ (\w+):|name:\s+f?"([\w{}]+)"', part)
            assert name is not None
            found.update(dict.fromkeys(_names(name[1] or name[2]), part))
    return found


def _names(name):
    if name == "measure_{probe}":
        return [f"measure_{probe}" for probe in plugins.found("probes")]
    return [name]
