"""Grids of two steps: found in a study, compared with the sum window by window, drawn and told."""

import math
import zlib

import numpy as np
import pandas as pd
import pytest

from hemorrhage.analysis import combinations, tables
from hemorrhage.figures import surface
from hemorrhage.planning import combinations as plan
from hemorrhage.planning.study import Study
from hemorrhage.planning.variants import expand
from hemorrhage.reporting import combination_findings

PRUNED, BITS = (0.1, 0.3, 0.5), (8, 4, 3)
SETTINGS = {"criteria": {"kl_0.1": {"metric": "kl", "at": 0.1}, "kl_0.5": {"metric": "kl", "at": 0.5}}}
ENTRIES = [
    {"magnitude": {"sparsity": list(PRUNED)}},
    {"rtn": {"group": 64, "bits": list(BITS)}},
    [{"magnitude": {"sparsity": list(PRUNED)}}, {"rtn": {"group": 64, "bits": list(BITS)}}],
    [{"rtn": {"bits": [4, 3]}}, "calibrated_temperature"],
    [{"wanda": {"sparsity": 0.5}}, {"rtn": {"bits": 4}}],
]


class Grid(Study):
    """The grid of a study without the rest of its config."""

    def __init__(self, entries):
        object.__setattr__(self, "variants", expand(entries))
        object.__setattr__(self, "config", {"tokens": {"evaluation": {"text": "t"}, "calibration": {}}})


STUDY = Grid(ENTRIES).grid()


def damage(slug):
    """ΔNLL of a made-up variant: the sum of both steps, 0.3 more where both are hard."""
    parts = dict(piece.rsplit("~", 1) for piece in slug.replace("_group~64", "").split("+") if "~" in piece)
    pruned, bits = float(parts.get("magnitude_sparsity", 0)), float(parts.get("rtn_bits", 16))
    both = 0.3 if pruned == 0.5 and bits == 3 else 0.0
    return 2 * pruned**2 + 0.5 * math.exp(3 - bits) * (bits < 16) + both


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    folder, windows, metrics = tmp_path_factory.mktemp("grid"), [], []
    hard = 1 + 0.2 * np.random.default_rng(0).standard_normal(12)
    for slug in STUDY["recipes"]:
        noise = 0.003 * np.random.default_rng(zlib.crc32(slug.encode())).standard_normal(12)
        sums = (damage(slug) * hard + noise * (slug != "identity")) * 100
        windows.append(
            pd.DataFrame(
                {
                    "model": "tiny",
                    "variant": slug,
                    "probe": "fidelity",
                    "metric": "delta_nll",
                    "window": range(12),
                    "sum": sums,
                    "count": 100.0,
                }
            )
        )
        metrics.append({"model": "tiny", "variant": slug, "probe": "fidelity", "metric": "kl", "value": damage(slug)})
    pd.concat(windows).to_parquet(folder / "windows.parquet")
    tables.write(pd.DataFrame(metrics).reindex(columns=tables.METRICS), folder / "metrics.tsv")
    combinations.compare(str(folder / "windows.parquet"), STUDY, str(folder / "combinations.tsv"))
    return {"metrics": str(folder / "metrics.tsv"), "combinations": str(folder / "combinations.tsv")}


def test_a_grid_is_found_with_its_levels_and_single_steps():
    (pair,) = plan.found(STUDY)
    assert pair.steps == ("magnitude_sparsity~*", "rtn_bits~*_group~64")
    assert pair.levels == ((0.1, 0.3, 0.5), (8, 4, 3))
    assert pair.variants[0.3, 4] == "magnitude_sparsity~0.3+rtn_bits~4_group~64"
    assert pair.singles[0][0.5] == "magnitude_sparsity~0.5"
    assert pair.singles[1] == {bits: f"rtn_bits~{bits}_group~64" for bits in BITS}
    assert plan.found(Grid(ENTRIES[:2]).grid()) == []


def test_the_difference_from_the_sum_is_paired(paths):
    table = combinations.read(paths["combinations"])
    assert len(table) == 9
    for row in tables.rows(table):
        hard = row.level_first == 0.5 and row.level_second == 3
        assert row.verdict == (combinations.MORE if hard else combinations.SAME)
        assert hard or row.difference == pytest.approx(0, abs=0.01)
        assert row.difference == pytest.approx(row.together - row.sum)
        assert row.difference_low < row.difference < row.difference_high
    corner = table[(table.level_first == 0.5) & (table.level_second == 3)].iloc[0]
    assert corner.difference == pytest.approx(0.3, abs=0.05)


def compared(folder, together, blocks=16):
    """The verdict where each step alone loses 0.2 nat in every window, and both together what is given [B]."""
    frames = [
        pd.DataFrame(
            {
                "model": "tiny",
                "variant": slug,
                "probe": "fidelity",
                "metric": "delta_nll",
                "window": range(blocks),
                "sum": together * 100 if "+" in slug else 20.0,
                "count": 100.0,
            }
        )
        for slug in STUDY["recipes"]
    ]
    pd.concat(frames).to_parquet(folder / "windows.parquet")
    combinations.compare(str(folder / "windows.parquet"), STUDY, str(folder / "out.tsv"))
    table = combinations.read(str(folder / "out.tsv"))
    (verdict,) = set(table.verdict)
    return verdict, table


@pytest.mark.parametrize(
    ("mean", "spread", "expected"),
    [
        (0.4, 0.01, combinations.SAME),
        (0.42, 0.001, combinations.SAME),  # shown to differ, and by less than anyone would plan by
        (0.4, 0.3, combinations.OPEN),  # the interval holds 0, and much more
        (0.44, 0.01, combinations.MORE),  # shown to differ, perhaps by more than the margin
        (0.6, 0.02, combinations.MORE),
        (0.2, 0.02, combinations.LESS),
    ],
)
def test_damage_adds_up_only_where_the_whole_interval_lies_within_the_margin(mean, spread, expected, tmp_path):
    noise = np.random.default_rng(0).standard_normal(16)
    noise = (noise - noise.mean()) / noise.std()
    assert compared(tmp_path, mean + 4 * spread * noise)[0] == expected


def test_the_margin_grows_with_the_damage():
    assert [combinations.margin(total) for total in (-0.1, 0.0, 0.4, 3.0)] == pytest.approx([0.05, 0.05, 0.05, 0.3])


def test_one_window_has_no_interval_and_is_undecided(tmp_path):
    assert compared(tmp_path, np.full(1, 0.4), blocks=1)[0] == combinations.OPEN


def test_an_infinite_variant_has_a_verdict_of_its_own_and_is_counted(tmp_path):
    verdict, table = compared(tmp_path, np.full(8, math.inf), blocks=8)
    assert verdict == combinations.INFINITE
    assert np.isposinf(table.together).all()
    (text,) = combination_findings.sentences(table, STUDY)
    assert text.endswith("against the sum of each alone, the damage together is infinite in 9.")


def test_the_surface_has_the_single_steps_at_its_edges(paths):
    (pair,) = plan.found(STUDY)
    values = tables.read(paths["metrics"]).set_index("variant").value
    up, across, cells = surface.surface(pair, values)
    assert (up, across) == ([None, 8, 4, 3], [None, 0.1, 0.3, 0.5])
    assert cells[0, 0] == 0
    assert cells[0, 3] == damage("magnitude_sparsity~0.5")
    assert cells[2, 2] == damage("magnitude_sparsity~0.3+rtn_bits~4_group~64")


def test_the_figure_has_the_same_bytes_every_time(paths, tmp_path):
    for name in ("a", "b"):
        surface.draw(paths, STUDY, SETTINGS, {"name": "surface"}, tmp_path / f"{name}.svg", tmp_path / f"{name}.png")
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    assert (tmp_path / "a.svg").stat().st_size > 20_000


def test_a_study_without_a_measured_grid_gets_a_figure_that_says_so(paths, tmp_path):
    metrics = tables.read(paths["metrics"])
    tables.write(metrics[metrics.variant == "identity"], tmp_path / "metrics.tsv")
    empty = {**paths, "metrics": tmp_path / "metrics.tsv"}
    surface.draw(empty, STUDY, SETTINGS, {"name": "surface"}, tmp_path / "a.svg", tmp_path / "a.png")
    assert (tmp_path / "a.svg").exists()


def test_the_sentence_has_counts_and_the_largest_difference(paths):
    (text,) = combination_findings.sentences(combinations.read(paths["combinations"]), STUDY)
    assert text.startswith(
        "magnitude with rtn · group 64: of 9 cells, against the sum of each alone, the damage together is more than "
        "the sum in 1, within 0.05 nat or 10 % of the sum in 8; the largest difference is +0.3"
    )
    assert "magnitude · sparsity 0.5 + rtn · bits 3 · group 64" in text
