"""What every job of the workflow does around its work: a log, one-sentence errors, no orphans, its own threads."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

POLL_SECONDS = 0.5
_PR_SET_PDEATHSIG = 1


@contextlib.contextmanager
def job(snakemake: Any) -> Iterator[logging.Logger]:
    """Run a script's work: output to the rule's log, errors a user can cause as one sentence, an end with the parent.

    ``snakemake`` is the object that Snakemake puts into a script. ValueError, OSError, MemoryError and a device out
    of memory are logged as one sentence; any other error keeps its traceback in the log. Both exit with 1.
    """
    _end_with_parent()
    stream = open(snakemake.log[0], "w", buffering=1, encoding="utf8")  # noqa: SIM115 - open until the process ends
    # The file descriptors, not sys.stdout: C code and child processes write to the log as well.
    os.dup2(stream.fileno(), 1)
    os.dup2(stream.fileno(), 2)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s: %(message)s", force=True)
    log = logging.getLogger(snakemake.rule)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    try:
        yield log
    except (ValueError, OSError, MemoryError) as error:
        log.debug("where it was raised", exc_info=True)
        log.error("%s", _sentence(error))
        sys.exit(1)
    except RuntimeError as error:
        if type(error).__name__ != "OutOfMemoryError":
            raise
        log.error("The device is out of memory: lower `batch` in the config, or use a device with more. (%s)", error)
        sys.exit(1)


def gpu_is_here() -> int:
    """Return 1 if this machine has a GPU that torch could use, else 0; asked without torch while rules are read."""
    return int(any(Path("/dev").glob("nvidia[0-9]*")))


def device(snakemake: Any) -> str:
    """Return "cuda" if the job was given a GPU and one is there, else "cpu"."""
    import torch

    wanted = int(snakemake.resources.get("gpu", 0) or 0)
    return "cuda" if wanted and torch.cuda.is_available() else "cpu"


def use_threads(snakemake: Any) -> None:
    """Hold torch to the threads that Snakemake gave the job."""
    import torch

    torch.set_num_threads(max(1, snakemake.threads))


def _sentence(error: BaseException) -> str:
    if isinstance(error, MemoryError):
        return "This machine is out of memory: lower `batch` in the config, or run fewer jobs at a time."
    return str(error) or type(error).__name__


def _end_with_parent() -> None:
    """End when Snakemake ends, however it ends: a killed driver must not leave jobs that go on writing."""
    parent = os.getppid()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def _watch(parent: int) -> None:
    """The portable way, and the one that sees a parent that ended before the kernel was asked."""
    while os.getppid() == parent:
        time.sleep(POLL_SECONDS)
    os._exit(1)
