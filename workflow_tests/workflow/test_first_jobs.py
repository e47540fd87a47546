"""What only a model or a text can tell is refused by the first job that knows, before any variant is made."""

import copy

import pytest
from workflow.project import CONFIG, Project

import tiny_gguf

pytestmark = pytest.mark.xdist_group("first_jobs")


def failing(tmp_path, change):
    """Run a changed study that must fail; returns what was printed and the project."""
    project = Project(tmp_path)
    config = copy.deepcopy(CONFIG)
    change(config, project.folder)
    project.configure(config)
    done = project.run(check=False)
    assert done.returncode != 0
    return done.stdout + done.stderr, project


def test_text_shorter_than_a_window(tmp_path):
    def change(config, folder):
        config["protocol"] = {"window": 100000}

    output, project = failing(tmp_path, change)
    assert "tokens.evaluation" in output and "100000" in output
    assert not list((project.folder / "results").rglob("modification.json"))
    assert not list((project.folder / "results").rglob("evaluation.npz"))


def test_wrong_checksum_of_a_local_text(tmp_path):
    def change(config, folder):
        config["texts"]["prose"]["sha256"] = "0" * 64

    output, _ = failing(tmp_path, change)
    assert "0" * 16 in output and "sha256" in output.lower()


def test_unreadable_gguf(tmp_path):
    def change(config, folder):
        (folder / "broken.gguf").write_bytes(b"GGUF" + b"\0" * 64)
        config["models"]["tiny"]["source"] = "path:broken.gguf"

    output, project = failing(tmp_path, change)
    assert "broken.gguf" in output
    assert not list((project.folder / "results").rglob("base/*"))


def test_unreachable_hub(tmp_path):
    def change(config, folder):
        config["models"]["tiny"]["source"] = "hub:nobody/nothing@main"

    output, _ = failing(tmp_path, change)
    assert "nobody/nothing" in output


def test_more_blocks_than_the_model_has(tmp_path):
    def change(config, folder):
        tiny_gguf.write(folder / "model.gguf")
        config["models"]["tiny"]["source"] = "path:model.gguf"
        config["variants"] = [{"drop_blocks": {"blocks": 99}}]
        config["decoding"] = {}

    output, project = failing(tmp_path, change)
    assert "drop_blocks_blocks~99 on model tiny" in output and "99" in output
    assert not list((project.folder / "results").rglob("modification.json"))
