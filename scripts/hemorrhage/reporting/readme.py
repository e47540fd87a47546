"""Put what a run measured into README.md: findings, thresholds and costs between markers, and the overview picture.

``make readme`` runs it after ``make results``. So no number in the README is typed by hand.
"""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

from hemorrhage import files, plugins
from hemorrhage.reporting import costs

ROOT = plugins.PROJECT
PICTURES = ("overview", "mitigations")


def fill(text: str, blocks: dict[str, str]) -> str:
    """Return ``text`` with the parts between ``<!-- begin:name -->`` and ``<!-- end:name -->`` replaced.

    Raises ValueError if a marker is missing.
    """
    for name, content in blocks.items():
        found = re.search(rf"(?<=<!-- begin:{name} -->\n).*?(?=<!-- end:{name} -->)", text, flags=re.DOTALL)
        if not found:
            raise ValueError(f"README.md: the markers of '{name}' are missing.")
        text = f"{text[: found.start()]}{content}\n{text[found.end() :]}"
    return text


def findings(summary: str) -> str:
    """Return the findings of summary.md."""
    return summary.split("## Findings", 1)[1].split("\n## ", 1)[0].strip()


def main(results: Path) -> None:
    """Fill README.md from a results folder and copy the pictures that it shows."""
    table = costs.read(results / "benchmarks")
    blocks = {"findings": findings((results / "summary.md").read_text(encoding="utf8")), "costs": costs.markdown(table)}
    readme = ROOT / "README.md"
    files.write_text(readme, fill(readme.read_text(encoding="utf8"), blocks))
    for picture in PICTURES:
        shutil.copyfile(results / "figures" / f"{picture}.png", ROOT / "docs" / f"{picture}.png")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "results"))
