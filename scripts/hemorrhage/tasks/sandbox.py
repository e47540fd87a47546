"""Running a program that a model has written: alone, without network, within limits, and with nothing it could change.

The program runs in a user, mount, process, network, IPC and host-name namespace of its own (Linux). Its file system is
an empty one that holds the interpreter and the system's libraries, read-only, and a small empty folder to work in: the
user's files are not there. It has no network device that is up, no environment, no input, no second process or thread,
and bounded memory, time, open files and file size. All that leaves is whether it succeeded. Where such a namespace
cannot be made nothing is run: there is no weaker way.
"""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

CHILD = Path(__file__).with_name("sandbox_child.py")
PASSED, FAILED, TIMED_OUT, REFUSED = "passed", "failed", "timed out", "refused"
MADE, NOT_MADE, TIME_UP = b"m", b"n", b"t"  # what the child says in the pipe
# The last statement of every program: one that leaves early with exit code 0 has not passed its tests.
REACHED, ENDING = 93, "\n__import__('os')._exit(93)\n"
PROOF = """
import os, socket
assert not os.environ.keys() - {"LC_CTYPE"}, "environment"
try:
    socket.create_connection(("192.0.2.1", 80), 0.2)
except OSError:
    pass
else:
    raise SystemExit("network")
assert [name for _, name in socket.if_nameindex()] in ([], ["lo"]), "network"
for place in ("/etc/passwd", "/proc/self", os.path.expanduser("~/.ssh"), "/home", "/tmp", "/root/.cache"):
    assert not os.path.exists(place), place
for place in ("/x", "/usr/x", os.__file__ + "x"):
    try:
        open(place, "w")
    except OSError:
        continue
    raise SystemExit("files")
try:
    os.fork()
except OSError:
    pass
else:
    os._exit(3)
open("x", "w").write("here")
"""


@dataclass(frozen=True)
class Limits:
    """What one program may use.

    Attributes:
        seconds: of wall clock; of processor time it may use one more.
        memory_mb: of address space.
        file_mb: of one file, and of all files together.
        files: open at once.
    """

    seconds: float = 5.0
    memory_mb: int = 512
    file_mb: int = 4
    files: int = 32


def run(program: str, limits: Limits | None = None) -> str:
    """Run a program and return what became of it: passed (its end was reached), failed, timed out, refused.

    Refused is a program that was not run, since no sandbox could be made for it.
    """
    limits = limits or Limits()
    reading, writing = os.pipe()
    numbers = [str(number) for number in (limits.seconds, limits.memory_mb, limits.file_mb, limits.files, writing)]
    child = subprocess.Popen(
        [sys.executable, "-I", "-S", str(CHILD), *numbers],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={},
        cwd="/",
        pass_fds=[writing],
        start_new_session=True,
    )
    os.close(writing)
    with open(reading, "rb") as pipe:
        try:
            child.communicate((program + ENDING).encode("utf8", "replace"), timeout=limits.seconds + 5)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            return _became(pipe.read() + TIME_UP, child.returncode)
        return _became(pipe.read(), child.returncode)


def _became(said: bytes, code: int) -> str:
    """What became of a program, from what its sandbox said in the pipe and the exit code, which may be anything."""
    if not said.startswith(MADE) or NOT_MADE in said:
        return REFUSED
    if TIME_UP in said:
        return TIMED_OUT
    return PASSED if code == REACHED else FAILED


@functools.cache
def why_not() -> str | None:
    """Return the sentence that says why programs cannot be run here; None if they can, which is tried."""
    if not sys.platform.startswith("linux"):
        return "programs that a model writes are run in Linux namespaces only, which this system does not have."
    if (found := run("pass")) != PASSED:
        return f"no namespace without network can be made here for programs that a model writes ({found})."
    if run(PROOF) != PASSED or run("raise SystemExit(1)") != FAILED:
        return "the namespace for programs that a model writes does not isolate them here."
    return None


def require() -> None:
    """Raise ValueError if programs cannot be run in isolation here."""
    if (reason := why_not()) is not None:
        raise ValueError(f"decoding.tasks.run_code: {reason}")
