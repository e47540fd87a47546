"""The figures of cascade and attention: blocks × variants from the metrics table, in reading order, always drawable."""

import math
from xml.etree import ElementTree

import example_study
import numpy as np
import pandas as pd
import pytest

from hemorrhage import plugins
from hemorrhage.analysis import tables
from hemorrhage.reporting import heatmaps, report

BLOCKS = 12
STUDY = example_study.grid()
METRICS = {"cascade": ("relative_error", "swap_kl"), "attention": ("disruption",)}


def rows(slug, probe, model="m", broken=False):
    """Made-up metrics of one variant; blocks that a shortened variant does not have are left out."""
    facts = STUDY["variants"][slug]
    damage = example_study._damage(STUDY["recipes"][slug])
    missing = {5, 6} if slug.startswith("drop_blocks") else set()
    values = {}
    for name in METRICS[probe]:
        for block in set(range(BLOCKS)) - missing:
            grown = damage * (0.2 + block / BLOCKS) if name != "swap_kl" else damage * math.exp(-abs(block - 3))
            values[f"{name}.{block:02d}"] = math.inf if broken and block > 6 else grown / (1 + grown)
    if probe == "attention":
        values["disruption"] = float(np.mean([value for value in values.values() if math.isfinite(value)]))
    sweeps = facts["sweeps"] or [("", "", "")]
    return [
        {
            "model": model,
            "variant": slug,
            "family": facts["family"],
            "method": facts["method"],
            "sweep": sweep,
            "arm": arm,
            "level": level,
            "probe": probe,
            "metric": metric,
            "value": value,
            "se": 0.0,
            "low": value,
            "high": value,
            "n": 100,
            "blocks": 4,
            "unit": "",
            "protocol": "p",
        }
        for sweep, arm, level in sweeps
        for metric, value in values.items()
    ]


def write(path, slugs, probe, **more):
    listed = [row for slug in slugs for row in rows(slug, probe, **more)]
    tables.write(pd.DataFrame(listed, columns=tables.METRICS), path)
    return {"metrics": str(path)}


def draw(probe, paths, folder):
    out = folder / f"{probe}.svg", folder / f"{probe}.png"
    plugins.get("figures", probe).module.draw(paths, STUDY, example_study.SETTINGS, {"name": probe}, *out)
    return [path.read_bytes() for path in out]


@pytest.mark.parametrize("probe", METRICS)
def test_the_figure_is_valid_and_has_the_same_bytes_every_time(probe, tmp_path):
    paths = write(tmp_path / "metrics.tsv", STUDY["variants"], probe)
    first, again = (draw(probe, paths, tmp_path / name) for name in "ab")
    assert first == again
    ElementTree.fromstring(first[0])
    assert len(first[0]) > 20_000 and first[1].startswith(b"\x89PNG")


@pytest.mark.parametrize("probe", METRICS)
def test_broken_variants_and_a_study_of_the_reference_alone_can_be_drawn(probe, tmp_path):
    whole = draw(probe, write(tmp_path / "broken.tsv", ["rtn_bits~2"], probe, broken=True), tmp_path / "broken")
    empty = draw(probe, write(tmp_path / "identity.tsv", ["identity"], probe), tmp_path / "identity")
    assert len(whole[0]) > 10_000 and len(whole[0]) > len(empty[0]) > 1000


def test_a_cascade_without_swaps_still_shows_the_errors(tmp_path):
    listed = [row for row in rows("rtn_bits~2", "cascade") if not row["metric"].startswith("swap")]
    tables.write(pd.DataFrame(listed, columns=tables.METRICS), tmp_path / "metrics.tsv")
    assert len(draw("cascade", {"metrics": str(tmp_path / "metrics.tsv")}, tmp_path)[0]) > 5000


def test_rows_go_by_family_and_each_sweep_from_the_harmless_end(tmp_path):
    slugs = [
        "rtn_bits~2",
        "identity",
        "drop_blocks_count~4",
        "rtn_bits~8",
        "drop_blocks_count~1",
        "magnitude_sparsity~0.1",
    ]
    frame = tables.read(write(tmp_path / "metrics.tsv", slugs, "cascade")["metrics"])
    shown = heatmaps.table(frame, "m", "cascade", "relative_error", STUDY)
    assert list(shown.index) == [
        "magnitude_sparsity~0.1",
        "rtn_bits~8",
        "rtn_bits~2",
        "drop_blocks_count~1",
        "drop_blocks_count~4",
    ]
    assert list(shown.columns) == list(range(BLOCKS))
    assert shown.loc["drop_blocks_count~1"].isna().tolist() == [block in (5, 6) for block in range(BLOCKS)]


def test_a_colour_scale_bears_zeros_infinities_and_equal_values():
    for values in ([[0.0, 0.0]], [[math.nan, math.inf]], [[0.3, 0.3]], [[1e-9, 2.0]]):
        for logarithmic in (True, False):
            scale = heatmaps.scale(np.array(values), logarithmic)
            assert 0 <= scale.vmin < scale.vmax < math.inf
    scale = heatmaps.scale(np.array([[1e-9, 2.0]]), True)
    assert (scale.vmin, scale.vmax) == pytest.approx((1e-3, 10))


def test_the_report_shows_them_under_their_own_heading(example, tmp_path):
    metrics = write(tmp_path / "metrics.tsv", STUDY["variants"], "cascade")
    draw("cascade", metrics, tmp_path)
    template = plugins.PROJECT / "rules" / "report" / "report.html.j2"
    for figures in ({}, {"cascade": str(tmp_path / "cascade.svg")}):
        report.write(
            example, figures, example["study"], example_study.SETTINGS, [], str(template), str(tmp_path / "report.html")
        )
        page = (tmp_path / "report.html").read_text(encoding="utf8")
        assert ('id="where-the-damage-starts"' in page) == bool(figures)
        assert ("the white point marks the block that does most" in page) == bool(figures)
