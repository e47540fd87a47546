"""``hub:owner/name@revision`` a model of the Hugging Face hub, or a file of it, or files of a data set.

``hub:owner/name@revision/file.gguf`` is one file, ``hub:datasets/owner/name@revision/files`` are files of a data set,
in which ``*`` stands for any characters. A revision is a branch, a tag or, best, a commit. Files lie in the hub's own
cache (``HF_HOME``); with a filled cache and ``HF_HUB_OFFLINE=1`` nothing is asked of the network. Of a model only
weights in safetensors, JSON and tokenizer files are fetched; pickled weights and code only if the config trusts the
model with them.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection
from fnmatch import fnmatch
from pathlib import Path

from hemorrhage import checksums, files

SAFE = ("*.safetensors", "*.json", "tokenizer*", "*.model", "*.txt", "*.jinja", "*.tiktoken")
TRUSTED = {"pickles": ("*.bin", "*.pt", "*.pth"), "remote_code": ("*.py",)}
_FORM = re.compile(r"(?P<data>datasets/)?(?P<name>[\w.-]+(?:/[\w.-]+)?)@(?P<revision>[\w.-]+)(?:/(?P<inner>.+))?")


def check(rest: str) -> None:
    """Raise ValueError if ``rest`` has a wrong form."""
    _parse(rest)


def fetch(rest: str, sha256: str | None, cache: Path, trust: Collection[str]) -> Path:
    """Return the one file that ``rest`` names, or a folder that holds the fetched files and no others.

    Raises ValueError for a wrong form, something the hub does not have, or a checksum that differs; OSError if the
    hub cannot be reached and the cache does not hold it.
    """
    kind, name, revision, inner = _parse(rest)
    patterns = [inner] if inner else [*SAFE, *(pattern for word in sorted(trust) for pattern in TRUSTED[word])]
    folder = _snapshot(rest, kind, name, revision, patterns)
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    names = [name for name in names if any(fnmatch(name, pattern) for pattern in patterns)]
    if not names:
        raise ValueError(f"hub:{rest}: {name} has no file '{inner or '*.json'}' at revision {revision}.")
    found = folder / names[0] if names == [inner] else _view(folder, names, cache / "hub" / kind / name, patterns)
    checksums.verify(found, sha256, f"hub:{rest}")
    return found


def _view(folder: Path, names: list[str], home: Path, patterns: list[str]) -> Path:
    """Return a folder of links to some files of a snapshot, which other fetches of the same commit share.

    Without it, files that somebody fetched earlier would be read too: a train split beside the test split.
    """
    key = hashlib.sha256("\n".join([*patterns, *names]).encode()).hexdigest()[:12]
    view = home / f"{folder.name}-{key}"
    with files.locked(view.with_name(f"{view.name}.lock")):
        if not view.is_dir():
            with files.atomic(view) as part:
                for name in names:
                    (part / name).parent.mkdir(parents=True, exist_ok=True)
                    (part / name).symlink_to((folder / name).resolve())
    return view


def _parse(rest: str) -> tuple[str, str, str, str | None]:
    form = _FORM.fullmatch(rest)
    if not form:
        raise ValueError(
            f"hub:{rest} is not of the form hub:owner/name@revision or hub:datasets/owner/name@revision/file."
        )
    if form["data"] and not form["inner"]:
        raise ValueError(
            f"hub:{rest} names a whole data set; name its files, as in "
            "hub:datasets/owner/name@revision/folder/test-*.parquet."
        )
    return "dataset" if form["data"] else "model", form["name"], form["revision"], form["inner"]


def _snapshot(rest: str, kind: str, name: str, revision: str, patterns: list[str]) -> Path:
    import httpx
    from huggingface_hub import errors, snapshot_download
    from huggingface_hub.utils import disable_progress_bars

    disable_progress_bars()
    try:
        return Path(snapshot_download(name, repo_type=kind, revision=revision, allow_patterns=patterns))
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
        raise ValueError(
            f"hub:{rest}: the hub has no such {kind} or revision, or it asks for a login ({type(error).__name__})."
        ) from None
    except (
        errors.HfHubHTTPError,
        errors.LocalEntryNotFoundError,
        errors.OfflineModeIsEnabled,
        httpx.HTTPError,
        OSError,
    ) as error:
        raise OSError(
            f"hub:{rest} is not in the cache and the hub cannot be reached ({type(error).__name__}); connect "
            "to the network, or fill the hub's cache on a machine that is connected."
        ) from None
