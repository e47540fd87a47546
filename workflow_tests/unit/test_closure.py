"""Import closures: everything a script uses, and nothing that is loaded by name."""

from pathlib import Path

from hemorrhage.planning import closure

SCRIPTS = closure.ROOT


def names(*files):
    return {Path(path).resolve().relative_to(SCRIPTS).as_posix() for path in closure.closure(files)}


def test_closure_holds_what_is_imported_at_any_depth():
    found = names(SCRIPTS / "find_thresholds.py")
    package = {"hemorrhage/analysis/thresholds.py", "hemorrhage/analysis/isotonic.py", "hemorrhage/files.py"}
    assert {"find_thresholds.py", *package} <= found


def test_closure_leaves_out_plugins_of_others():
    found = names(SCRIPTS / "modify_model.py")
    assert "hemorrhage/checkpoints.py" in found
    assert not any(name.startswith("hemorrhage/modifications/") for name in found)


def test_imports_inside_functions_count():
    assert "hemorrhage/activations/calibration.py" in names(SCRIPTS / "hemorrhage/modifications/pruning/wanda.py")


def test_sources_are_relative_to_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert all(not Path(path).is_absolute() for path in closure.sources(SCRIPTS / "measure_text.py"))
