"""Depth map and disruption as figures, and the sentences on expansion, from a made-up table."""

from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest

from hemorrhage import plugins
from hemorrhage.analysis import correlations, tables
from hemorrhage.reporting import expansion_findings

GRID = {"repairs": {"identity_blocks": [], "repeat_blocks": [], "random_blocks": []}, "axes": {}}


def row(variant, probe, metric, value, method="repeat_blocks", family="expansion"):
    empty = dict.fromkeys(tables.METRICS, "")
    return {
        **empty,
        "model": "m",
        "variant": variant,
        "family": family,
        "method": method,
        "probe": probe,
        "metric": metric,
        "value": value,
        "se": 0.0,
        "low": value,
        "high": value,
        "n": 10,
        "blocks": 2,
    }


@pytest.fixture
def metrics():
    rows = [
        row("identity", "fidelity", "kl", 0.0, "identity", "control"),
        row("identity", "attention", "disruption", 0.0, "identity", "control"),
    ]
    for level in (1, 2, 4, 8, 16):
        slug = f"repeat_blocks_blocks~{level}"
        rows += [
            row(slug, "fidelity", "kl", 0.1 * level),
            row(slug, "fidelity", "perplexity_ratio", 1 + 0.2 * level),
            row(slug, "attention", "disruption", 0.02 * level**0.5),
        ]
    free = ("identity_blocks_blocks~2", "fidelity")
    rows += [row(*free, "kl", 0.0, "identity_blocks"), row(*free, "perplexity_ratio", 1.0, "identity_blocks")]
    for kind in ("removal", "repetition"):
        for length in (1, 2):
            for start in range(5 - length):
                damage = 5.0 if start == 0 else 0.01 * (1 + start) * length
                place = f"{start:02d}.{length}"
                rows += [
                    row("identity", "depth_map", f"{kind}_kl.{place}", damage, "identity", "control"),
                    row("identity", "depth_map", f"{kind}_delta_nll.{place}", damage, "identity", "control"),
                ]
    return pd.DataFrame(rows, columns=tables.METRICS)


@pytest.mark.parametrize("name", ["depth_map", "disruption"])
def test_figures_are_drawn_with_the_same_bytes_every_time(name, metrics, tmp_path):
    tables.write(metrics, tmp_path / "metrics.tsv")
    paths = {"metrics": str(tmp_path / "metrics.tsv")}
    drawn = []
    for turn in ("a", "b"):
        out = [tmp_path / f"{turn}.{suffix}" for suffix in ("svg", "png")]
        plugins.get("figures", name).module.draw(paths, GRID, {}, {"name": name}, *out)
        drawn.append([path.read_bytes() for path in out])
    assert drawn[0] == drawn[1]
    ElementTree.fromstring(drawn[0][0])
    assert len(drawn[0][0]) > 15_000


@pytest.mark.parametrize("name", ["depth_map", "disruption"])
def test_a_study_without_the_probe_gets_a_figure_that_says_so(name, metrics, tmp_path):
    tables.write(metrics[metrics.probe == "fidelity"], tmp_path / "metrics.tsv")
    out = [tmp_path / f"a.{suffix}" for suffix in ("svg", "png")]
    plugins.get("figures", name).module.draw({"metrics": str(tmp_path / "metrics.tsv")}, GRID, {}, {"name": name}, *out)
    assert all(path.exists() for path in out)


def test_the_maps_have_a_row_per_length_and_a_column_per_start(metrics):
    frame = plugins.get("figures", "depth_map").module.maps(metrics)["m"]["removal"]
    assert list(frame.index) == [1, 2]
    assert list(frame.columns) == [0, 1, 2, 3]
    assert frame.loc[2, 1] == pytest.approx(0.04)
    assert np.isnan(frame.loc[2, 3])


def test_correlation_is_of_ranks_and_leaves_out_what_does_nothing(metrics):
    found = correlations.pairs(metrics, ("attention", "disruption"), ("fidelity", "kl"))
    assert len(found) == 1
    assert found[0].rank == found[0].low == found[0].high == 1
    assert len(found[0].points) == 5
    assert found[0].linear == pytest.approx(1)
    few = metrics[~metrics.variant.isin(["repeat_blocks_blocks~1", "repeat_blocks_blocks~2"])]
    assert correlations.pairs(few, ("attention", "disruption"), ("fidelity", "kl")) == []
    assert correlations.spearman(np.array([1, 2, 3, 4]), np.array([4, 3, 2, 1])) == pytest.approx(-1)


def test_sentences_say_what_was_found_with_numbers(metrics):
    text = " ".join(expansion_findings.sentences(metrics, GRID))
    assert "loses nothing with identity blocks (largest KL exactly 0)" in text
    assert "repeat blocks · blocks 1 does least (KL 0.100" in text
    assert "repeat blocks · blocks 16 most (KL 1.60, perplexity ×4.20)" in text
    assert "Disruption of attention goes with damage over 5 variants of m: rank correlation with KL 1" in text
    assert "removing one block costs least at block 1 (KL 0.0200" in text
    assert "most at block 0 (KL 5.00, perplexity ×148)" in text


def test_sweeps_are_compared_at_the_number_of_blocks_that_most_have(metrics):
    other = metrics[metrics.variant.str.startswith("repeat") & metrics.level.eq("")].copy()
    levels = other.variant.str.rpartition("~")[2]
    first = other.assign(sweep="repeat_blocks_blocks~*", level=levels)
    second = other[levels.isin(["1", "2"])].assign(
        sweep="random_blocks_blocks~*", method="random_blocks", value=7.0, level=levels
    )
    axes = {method: {"unit": "blocks added"} for method in ("repeat_blocks", "random_blocks")}
    text = " ".join(expansion_findings.sentences(pd.concat([first, second]), {**GRID, "axes": axes}))
    assert "With 2 blocks added, the KL is: repeat blocks 0.200, random blocks 7.00." in text


def test_a_study_without_expansion_gets_no_sentence(metrics):
    rest = metrics[(metrics.family == "control") & (metrics.probe == "fidelity")]
    assert expansion_findings.sentences(rest, GRID) == []
