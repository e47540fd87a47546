"""One finished run of the tiny study, shared by the tests that only look at it."""

import pytest
from workflow.project import Project


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """The tiny study, run to its end. Tests may plan further runs here, but change no file."""
    project = Project(tmp_path_factory.mktemp("finished"))
    project.run()
    return project


@pytest.fixture
def copied(finished, tmp_path):
    """A copy of the finished study that a test may change."""
    return finished.copy(tmp_path / "copy")
