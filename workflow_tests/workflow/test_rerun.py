"""Only what changed is made again: job counts of dry-runs after one change."""

import copy

import pytest

pytestmark = pytest.mark.xdist_group("workflow")
SHARED = {"collect_metrics", "find_thresholds", "compare_mitigations", "write_report", "write_summary"}


def append(project, name, text="\nADDED_BY_A_TEST = 1\n"):
    path = project.folder / "scripts" / "hemorrhage" / name
    path.write_text(path.read_text() + text)


def test_changed_method_reruns_its_variants_and_what_is_made_from_them(copied):
    append(copied, "modifications/pruning/wanda.py")
    jobs = copied.jobs()
    assert jobs["modify_model"] == 2
    assert jobs["measure_fidelity"] == 2
    assert "prepare_model" not in jobs and "measure_reference" not in jobs and "generate_text" not in jobs
    assert jobs.keys() >= SHARED


def test_changed_probe_reruns_the_probe_and_nothing_that_modifies(copied):
    append(copied, "probes/fidelity.py")
    jobs = copied.jobs()
    assert jobs["measure_fidelity"] == 9
    assert not jobs.keys() & {"prepare_model", "prepare_tokens", "measure_reference", "modify_model", "generate_text"}


def test_changed_shared_module_reruns_what_imports_it(copied):
    append(copied, "decoding/trajectories.py")
    jobs = copied.jobs()
    assert jobs["measure_text"] == 4
    assert not jobs.keys() & {"generate_text", "modify_model", "measure_fidelity", "prepare_tokens"}


def test_changed_thresholds_rerun_no_model(copied):
    append(copied, "analysis/thresholds.py")
    jobs = copied.jobs()
    assert "find_thresholds" in jobs
    assert not jobs.keys() & {"modify_model", "measure_fidelity", "collect_metrics"}


def test_added_level_adds_its_jobs(copied):
    config = copy.deepcopy(copied.config)
    config["variants"][0]["magnitude"]["sparsity"].append(0.9)
    copied.configure(config)
    jobs = copied.jobs()
    assert jobs["modify_model"] == 1 and jobs["measure_fidelity"] == 1
    assert "generate_text" not in jobs


def test_removed_level_removes_its_jobs(copied):
    config = copy.deepcopy(copied.config)
    config["variants"][0]["magnitude"]["sparsity"] = [0.3]
    copied.configure(config)
    jobs = copied.jobs()
    assert not jobs.keys() & {"modify_model", "measure_fidelity"}
    assert "collect_metrics" in jobs


def test_changed_setting_of_all_variants_reruns_them_and_no_reference(copied):
    jobs = copied.jobs("--config", "chunk=2")
    assert jobs["modify_model"] == 9
    assert not jobs.keys() & {"prepare_model", "prepare_tokens", "measure_reference"}


def test_changed_seed_of_tokens_reruns_everything_measured_on_them(copied):
    jobs = copied.jobs("--config", "seed=7")
    assert jobs["prepare_tokens"] == 3
    assert jobs["measure_fidelity"] == 9
    assert "prepare_model" not in jobs


def test_comment_in_config_changes_nothing(copied):
    path = copied.folder / "config.yaml"
    path.write_text("# a comment\n" + path.read_text())
    assert copied.jobs() == {}
