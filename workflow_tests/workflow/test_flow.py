"""The whole flow on a tiny model: it ends with a report, does nothing twice, and gives the same bytes elsewhere."""

import io
import re

import pandas as pd
import pytest
from workflow.project import Project

pytestmark = pytest.mark.xdist_group("workflow")
TABLES = ("metrics.tsv", "thresholds.tsv", "mitigations.tsv", "floors.tsv")


def metrics_of(project):
    return pd.read_csv(io.BytesIO(project.read("tables/metrics.tsv")), sep="\t")


def test_run_ends_with_report_and_tables(finished):
    report = finished.read("report.html").decode()
    assert report.lstrip().lower().startswith("<!doctype html>")
    assert not re.search(r"""(src|href)=["']https?://""", report)
    assert "magnitude" in report and "calibrated temperature" in report
    assert finished.read("summary.md")


def test_second_run_does_nothing(finished):
    done = finished.run()
    assert "Nothing to be done" in done.stdout + done.stderr


def test_identity_is_exactly_the_reference(finished):
    rows = metrics_of(finished).query("variant == 'identity' and probe == 'fidelity'").set_index("metric")
    for metric in ("kl", "delta_nll", "kl_max"):
        assert rows.loc[metric, "value"] == 0
    assert rows.loc["top1_agreement", "value"] == 1
    assert rows.loc["perplexity_ratio", "value"] == 1


def test_every_variant_is_measured_and_damaged(finished):
    kl = metrics_of(finished).query("metric == 'kl'").drop_duplicates("variant").set_index("variant")["value"]
    assert len(kl) == 9
    assert (kl.drop("identity") > 0).all()
    assert kl["magnitude_sparsity~0.6"] > kl["magnitude_sparsity~0.3"]
    assert kl["rtn_bits~3"] > kl["rtn_bits~8"]


def test_variants_are_measured_as_they_are_made(finished):
    """Else the cache of checkpoints fills with variants that wait, and those that it drops are made twice."""
    folders = list((finished.folder / "results/models/tiny/variants").iterdir())
    made, measured = (
        sorted((folder / name).stat().st_mtime_ns for folder in folders)
        for name in ("modification.json", "fidelity.json")
    )
    waiting = [sum(other <= time for other in made) - sum(other <= time for other in measured) for time in made]
    assert len(waiting) == 9
    assert max(waiting) <= 4  # two jobs at once, and one of each just ended


def test_text_of_identity_does_not_depart_from_the_reference(finished):
    text = metrics_of(finished).query("variant == 'identity' and metric == 'weight_effect.identical_share'")
    assert len(text) == 2 and (text["value"] == 1).all()


def test_results_hold_no_absolute_path(finished):
    for name in TABLES:
        assert str(finished.folder) not in finished.read(f"tables/{name}").decode()


def test_same_seed_in_another_folder_gives_equal_bytes(finished, tmp_path):
    other = Project(tmp_path / "elsewhere" / "deeper")
    other.run("tables")
    for name in TABLES[:3]:
        assert other.read(f"tables/{name}") == finished.read(f"tables/{name}")
