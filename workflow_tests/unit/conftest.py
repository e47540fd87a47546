"""Fixtures of the unit tests: the made-up study, written once."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

import example_study


@pytest.fixture(scope="session")
def example(tmp_path_factory):
    """Every table of the made-up study by name, and its grid under "study"."""
    return example_study.write_tables(tmp_path_factory.mktemp("example"))
