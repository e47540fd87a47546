"""The cluster profile plans the same jobs; the run itself needs a cluster."""

import pytest
from workflow.project import parse_jobs

pytestmark = pytest.mark.xdist_group("workflow")


def test_dry_run_with_the_slurm_profile_plans_the_same_jobs(finished):
    plain = finished.jobs("--forceall")
    command = finished.command("--dry-run", "--quiet", "rules", "--forceall")
    place = command.index("none")
    command[place] = "profiles/slurm"
    done = finished.call(command)
    assert done.returncode == 0, done.stdout + done.stderr
    assert parse_jobs(done.stdout + done.stderr) == plain
