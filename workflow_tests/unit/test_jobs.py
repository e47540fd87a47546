"""What every job does around its work: one sentence for what a user can mend, and an end with its parent."""

import contextlib
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from hemorrhage import jobs

SCRIPTS = os.path.dirname(os.path.dirname(jobs.__file__))


def run_job(tmp_path, body):
    """Run ``body`` as a job in a process of its own; returns (exit code, log)."""
    code = f"""
    import sys; sys.path.insert(0, {SCRIPTS!r})
    from types import SimpleNamespace
    from hemorrhage import jobs
    with jobs.job(SimpleNamespace(log=["job.log"], rule="test", threads=1)) as log:
        {body}
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], cwd=tmp_path)
    return done.returncode, (tmp_path / "job.log").read_text()


def test_what_a_user_can_mend_is_one_sentence(tmp_path):
    code, log = run_job(tmp_path, 'raise ValueError("bits: 9 is too much.")')
    assert code == 1
    assert log == "ERROR: bits: 9 is too much.\n"


def test_what_only_a_developer_can_mend_keeps_its_traceback(tmp_path):
    code, log = run_job(tmp_path, "raise KeyError('x')")
    assert code == 1 and "Traceback" in log


def test_output_of_child_processes_goes_into_the_log(tmp_path):
    code, log = run_job(tmp_path, "import os; os.system('echo from a child')")
    assert code == 0 and "from a child" in log


def running(script):
    """Whether a process runs this script itself."""
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it may end while we look
            if entry.joinpath("cmdline").read_bytes().split(b"\0")[1:2] == [script.encode()]:
                return True
    return False


def test_a_job_ends_with_its_parent(tmp_path):
    child = f"""
    import sys, time; sys.path.insert(0, {SCRIPTS!r})
    from types import SimpleNamespace
    from hemorrhage import jobs
    with jobs.job(SimpleNamespace(log=["job.log"], rule="test", threads=1)) as log:
        open("started", "w").close()
        time.sleep(60)
    """
    path = str(tmp_path / "child.py")
    (tmp_path / "child.py").write_text(textwrap.dedent(child))
    parent = subprocess.Popen(
        [sys.executable, "-c", f"import subprocess; subprocess.run([{sys.executable!r}, {path!r}])"], cwd=tmp_path
    )
    deadline = time.time() + 30
    while not (tmp_path / "started").exists():
        assert time.time() < deadline
        time.sleep(0.05)
    assert running(path)
    parent.kill()
    parent.wait()
    time.sleep(2)
    assert not running(path)


def test_a_gpu_is_used_only_if_the_job_was_given_one():
    assert jobs.device(SimpleNamespace(resources={})) == "cpu"
    assert jobs.device(SimpleNamespace(resources={"gpu": 0})) == "cpu"


def test_out_of_memory_says_what_to_do(tmp_path):
    _, log = run_job(tmp_path, "raise MemoryError")
    assert "lower `batch`" in log


@pytest.mark.parametrize("threads", [1, 2])
def test_a_job_uses_the_threads_it_was_given(threads):
    import torch

    before = torch.get_num_threads()
    jobs.use_threads(SimpleNamespace(threads=threads))
    assert torch.get_num_threads() == threads
    torch.set_num_threads(before)
