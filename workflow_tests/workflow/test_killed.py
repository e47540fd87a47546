"""A run killed at any moment and started again ends in the same tables, and no orphan goes on writing."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from workflow.project import Project

pytestmark = [pytest.mark.xdist_group("killed"), pytest.mark.slow]


def start(project):
    """Start `make results` on the tests' own environment, in a process group of its own."""
    environment = project.folder / ".venv"
    environment.mkdir(exist_ok=True)
    if not (environment / "bin").exists():
        (environment / "bin").symlink_to(Path(sys.executable).parent)
    (environment / "installed").touch()
    return subprocess.Popen(
        ["make", "results", "CORES=2"],
        cwd=project.folder,
        env=project.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def until_records(project, count):
    """Wait until so many variants are recorded."""
    deadline = time.time() + 300
    while len(list(project.folder.rglob("modification.json"))) < count:
        assert time.time() < deadline
        time.sleep(0.2)


def children_of(project):
    """Processes that work in the project's folder."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if Path(os.readlink(entry / "cwd")) == project.folder and int(entry.name) != os.getpid():
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def driver_of(project):
    """The Snakemake that schedules: the oldest one that works in the project's folder."""
    for pid in sorted(children_of(project)):
        command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        if any(part.endswith(b"snakemake") for part in command) and b"--cores" in command:
            return pid
    raise AssertionError("no driver is running")


@pytest.mark.parametrize("whole_group", [False, True], ids=["driver alone", "driver with children"])
def test_killed_run_ends_in_the_same_tables(finished, tmp_path, whole_group):
    project = Project(tmp_path / "killed")
    run = start(project)
    until_records(project, 2)
    if whole_group:
        os.killpg(run.pid, signal.SIGKILL)
    else:
        os.kill(driver_of(project), signal.SIGKILL)
    run.wait(60)
    time.sleep(3)
    assert children_of(project) == []
    again = start(project)
    output, _ = again.communicate(timeout=600)
    assert again.returncode == 0, output
    for name in ("metrics.tsv", "thresholds.tsv", "mitigations.tsv"):
        assert project.read(f"tables/{name}") == finished.read(f"tables/{name}")
    assert not list((project.folder / "results").rglob(".part-*"))


def test_second_driver_is_refused_in_one_sentence(tmp_path):
    project = Project(tmp_path / "two")
    first = start(project)
    until_records(project, 1)
    second = start(project)
    output, _ = second.communicate(timeout=60)
    os.killpg(first.pid, signal.SIGKILL)
    assert second.returncode != 0
    assert "Another run works in this folder" in output
