"""Wrong configs are refused while the DAG is built: one sentence with key, value and what is allowed."""

import copy

import pytest
from workflow.project import CONFIG, Project

pytestmark = pytest.mark.xdist_group("refusals")


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return Project(tmp_path_factory.mktemp("refusals"))


def changed(path, value):
    """CONFIG with the value at ``path`` replaced."""
    config = copy.deepcopy(CONFIG)
    place = config
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return config


CASES = {
    "unknown method": (
        changed(["variants", 0], {"magnitud": {"sparsity": 0.5}}),
        ["magnitud", "Did you mean 'magnitude'"],
    ),
    "sparsity above 1": (changed(["variants", 0], {"magnitude": {"sparsity": 1.5}}), ["sparsity", "1.5", "0 to 1"]),
    "bits 0": (changed(["variants", 2], {"rtn": {"bits": 0}}), ["bits", "0", "2 to 8"]),
    "unknown setting": (changed(["variants", 2], {"rtn": {"bit": 4}}), ["bit", "Did you mean 'bits'"]),
    "unknown key": (changed(["protocl"], {}), ["protocl", "Did you mean 'protocol'"]),
    "unknown nested key": (
        changed(["tokens", "evaluation"], {"text": "prose", "window_s": 3}),
        ["window_s", "windows"],
    ),
    "missing model": (changed(["models", "tiny"], {"source": "path:nowhere"}), ["models.tiny", "nowhere"]),
    "missing text": (changed(["texts", "prose", "source"], "path:no.jsonl"), ["texts.prose", "no.jsonl"]),
    "unknown kind of source": (changed(["models", "tiny"], {"source": "hup:a/b"}), ["hup", "hub"]),
    "unknown text": (changed(["tokens", "fit"], {"text": "poetry"}), ["poetry", "prose"]),
    "unknown calibration": (
        changed(["variants", 1], {"wanda": {"sparsity": 0.5, "calibration": "c4"}}),
        ["c4", "default"],
    ),
    "group that does not divide": (changed(["variants", 2], {"rtn": {"bits": 4, "group": 24}}), ["group", "24", "32"]),
    "unknown decoder": (changed(["decoding", "decoders"], ["gredy"]), ["gredy", "Did you mean 'greedy'"]),
    "unknown variant to decode": (changed(["decoding", "variants"], ["rtn_bits~9"]), ["rtn_bits~9"]),
    "slash in a model's name": (changed(["models"], {"a/b": {"source": "path:model"}}), ["a/b"]),
    "name of two words": (changed(["dtype"], "float23"), ["dtype", "float23", "float32"]),
    "too few seeds": (changed(["decoding", "seeds"], [1]), ["decoding.seeds"]),
    "unknown probe": (changed(["probes"], {"fidelty": {}}), ["fidelty", "fidelity"]),
}


@pytest.mark.parametrize("name", CASES)
def test_refused_in_one_sentence(project, name):
    config, words = CASES[name]
    output = project.refusal(config)
    last = output.splitlines()[-1]
    assert last.startswith("The config is refused:"), output
    assert "Traceback" not in output
    assert len(output.splitlines()) <= 3, output
    for word in words:
        assert word in last


def test_unreadable_yaml_is_refused(project):
    (project.folder / "config.yaml").write_text("models: [")
    done = project.run("--dry-run", check=False)
    assert done.returncode != 0


def test_export_of_unknown_variant_is_refused(project):
    project.configure(CONFIG)
    done = project.run("export", "--dry-run", "--config", "variant=magnitude_sparsity~0.31", check=False)
    assert done.returncode != 0
    assert "Did you mean 'magnitude_sparsity~0.3'" in done.stdout + done.stderr
