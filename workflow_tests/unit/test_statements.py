"""Qualitative statements: judged on windows of a made-up study, and their figures."""

from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest

from hemorrhage import plugins
from hemorrhage.analysis import calibrations, statements, statistics, tables
from hemorrhage.analysis.orderings import FAILS, HOLDS, OPEN, Measured

BLOCKS, TOKENS = 16, 100.0
SPARSITY = {"setting": "sparsity", "harmless": 0, "rises": True, "integer": False, "unit": "share of weights"}
BITS = {"setting": "bits", "harmless": None, "rises": False, "integer": True, "unit": "bits per weight"}
SETS = {
    "default": {"text": "near", "windows": 16},
    "near-8": {"text": "near", "windows": 8},
    "far-8": {"text": "far", "windows": 8},
    "far-32": {"text": "far", "windows": 32},
}


def pruned(method, sparsity, pattern=None, **more):
    own = {} if method == "magnitude" else {"calibration": "default", "allocation": "uniform"}
    return {"method": method, "settings": {"sparsity": sparsity, "pattern": pattern, **own, **more}}


def rounded(method, bits, **more):
    own = {} if method == "rtn" else {"calibration": "default"}
    return {"method": method, "settings": {"bits": bits, "group": 64, "symmetric": False, **own, **more}}


def study(steps, folder):
    """Tables of variants given as slug -> (step, KL in nats, spread over windows); returns their paths and the grid."""
    methods = {step["method"] for step, *_ in steps.values()}
    quantizers = {"rtn", "gptq"}
    grid = {
        "variants": {
            slug: {"family": "quantization" if s["method"] in quantizers else "pruning"}
            for slug, (s, *_) in steps.items()
        },
        "axes": {method: BITS if method in quantizers else SPARSITY for method in methods},
        "repairs": {method: [] for method in methods},
        "recipes": {"identity": [], **{slug: [step] for slug, (step, *_) in steps.items()}},
        "calibrations": SETS,
        "evaluation_text": "near",
    }
    rows, windows = [], []
    for slug, (step, kl, spread) in {"identity": ({"method": "identity", "settings": {}}, 0.0, 0.0), **steps}.items():
        noise = spread * np.random.default_rng(len(slug) + sum(map(ord, slug))).standard_normal(BLOCKS)
        sums = np.maximum(kl + noise, 0) * TOKENS
        estimate = statistics.mean_interval(sums, np.full(BLOCKS, TOKENS))
        walked = f"{slug}_sparsity~*" if "pattern~" in slug else slug.rsplit("~", 1)[0] + "~*"
        sweep = "" if slug == "identity" else walked
        level = "" if slug == "identity" else step["settings"].get("bits", step["settings"].get("sparsity"))
        shared = dict.fromkeys(tables.METRICS, "") | {
            "model": "m",
            "variant": slug,
            "probe": "fidelity",
            "sweep": sweep,
            "level": level,
            "method": step["method"],
            "family": "x",
            "protocol": "p",
        }
        for metric, found in (
            ("kl", estimate),
            ("delta_nll", estimate),
            ("perplexity_ratio", statistics.exponential(estimate)),
        ):
            rows.append({**shared, "metric": metric, **vars(found)})
        windows += [
            pd.DataFrame(
                {
                    "model": "m",
                    "variant": slug,
                    "probe": "fidelity",
                    "metric": metric,
                    "window": range(BLOCKS),
                    "sum": sums,
                    "count": TOKENS,
                }
            )
            for metric in ("kl", "delta_nll")
        ]
    folder.mkdir(exist_ok=True, parents=True)
    paths = {
        "metrics": folder / "metrics.tsv",
        "windows": folder / "windows.parquet",
        "statements": folder / "statements.tsv",
    }
    tables.write(pd.DataFrame(rows)[tables.METRICS], paths["metrics"])
    pd.concat(windows).to_parquet(paths["windows"], index=False)
    return paths, grid


def judged(steps, folder):
    """Statement -> (verdict, held, comparisons)."""
    paths, grid = study(steps, folder)
    statements.judge(str(paths["metrics"]), str(paths["windows"]), grid, str(paths["statements"]))
    return {
        row.statement: (row.verdict, row.held, row.comparisons)
        for row in tables.rows(statements.read(str(paths["statements"])))
    }


def starting(found, words):
    return next(value for statement, value in found.items() if statement.startswith(words))


@pytest.mark.parametrize(("kl", "verdict"), [(0.2, HOLDS), (0.9, FAILS)])
def test_a_calibrated_method_is_compared_with_the_free_one_at_hard_levels_only(kl, verdict, tmp_path):
    steps = {
        "magnitude_sparsity~0.1": (pruned("magnitude", 0.1), 0.01, 0.001),
        "wanda_sparsity~0.1": (pruned("wanda", 0.1), 0.02, 0.001),
        "magnitude_sparsity~0.5": (pruned("magnitude", 0.5), 0.5, 0.01),
        "wanda_sparsity~0.5": (pruned("wanda", 0.5), kl, 0.01),
    }
    assert starting(judged(steps, tmp_path), "Calibrated") == (verdict, int(verdict == HOLDS), 1)


def test_what_the_windows_do_not_tell_is_undecided(tmp_path):
    steps = {
        "gptq_bits~3_group~64": (rounded("gptq", 3), 0.3, 0.2),
        "rtn_bits~3_group~64": (rounded("rtn", 3), 0.3, 0.2),
    }
    assert starting(judged(steps, tmp_path), "Calibrated") == (OPEN, 0, 1)


def test_patterns_are_a_chain_from_anywhere_to_two_of_four(tmp_path):
    steps = {
        "wanda_sparsity~0.5": (pruned("wanda", 0.5), 0.3, 0.01),
        "wanda_pattern~4-8": (pruned("wanda", 0.5, "4:8"), 0.5, 0.01),
        "wanda_pattern~2-4": (pruned("wanda", 0.5, "2:4"), 0.9, 0.01),
        "wanda_pattern~1-4": (pruned("wanda", 0.75, "1:4"), 0.1, 0.01),
        "wanda_calibration~far-8_sparsity~0.5": (pruned("wanda", 0.5, calibration="far-8"), 9.0, 0.01),
    }
    assert starting(judged(steps, tmp_path), "Of one pruner") == (HOLDS, 2, 2)


def test_damage_that_falls_is_counted_against_monotony(tmp_path):
    steps = {
        "magnitude_sparsity~0.1": (pruned("magnitude", 0.1), 0.3, 0.01),
        "magnitude_sparsity~0.3": (pruned("magnitude", 0.3), 0.2, 0.01),
        "magnitude_sparsity~0.5": (pruned("magnitude", 0.5), 0.6, 0.01),
    }
    assert starting(judged(steps, tmp_path), "Damage never falls") == (FAILS, 2, 3)


@pytest.mark.parametrize(("kl", "verdict"), [(0.001, HOLDS), (0.02, FAILS)])
def test_eight_bits_are_near_lossless_by_the_interval_of_perplexity(kl, verdict, tmp_path):
    steps = {"rtn_bits~8_group~64": (rounded("rtn", 8), kl, 0.0005)}
    assert starting(judged(steps, tmp_path), "8 bits") == (verdict, int(verdict == HOLDS), 1)


def far(folder):
    return study(
        {
            "wanda_sparsity~0.5": (pruned("wanda", 0.5), 0.3, 0.01),
            "wanda_calibration~near-8_sparsity~0.5": (pruned("wanda", 0.5, calibration="near-8"), 0.35, 0.01),
            "wanda_calibration~far-8_sparsity~0.5": (pruned("wanda", 0.5, calibration="far-8"), 0.6, 0.01),
            "wanda_calibration~far-32_sparsity~0.5": (pruned("wanda", 0.5, calibration="far-32"), 0.5, 0.01),
            "wanda_sparsity~0.3": (pruned("wanda", 0.3), 0.1, 0.01),
        },
        folder,
    )


def test_calibration_sets_are_paired_at_equal_numbers_of_sequences(tmp_path):
    paths, grid = far(tmp_path)
    measured = Measured("m", tables.read(paths["metrics"]), tables.read_windows(paths["windows"]), grid)
    pair = ("wanda_calibration~near-8_sparsity~0.5", "wanda_calibration~far-8_sparsity~0.5")
    assert calibrations.near_and_far(measured) == [pair]
    found = calibrations.points(measured)
    assert [(point.near, point.sequences) for point in found] == [(True, 8), (True, 16), (False, 8), (False, 32)]
    assert {point.group for point in found} == {"wanda · sparsity 0.5"}


@pytest.mark.parametrize("name", ["calibration", "patterns"])
def test_the_figures_have_the_same_bytes_every_time(name, tmp_path):
    paths, grid = far(tmp_path)
    if name == "patterns":
        steps = {
            "wanda_sparsity~0.5": (pruned("wanda", 0.5), 0.3, 0.01),
            "wanda_pattern~2-4": (pruned("wanda", 0.5, "2:4"), 0.9, 0.01),
        }
        paths, grid = study(steps, tmp_path)
    drawn = []
    for turn in "ab":
        out = tmp_path / f"{turn}.svg", tmp_path / f"{turn}.png"
        plugins.get("figures", name).module.draw(paths, grid, {}, {"name": name}, *out)
        drawn.append([path.read_bytes() for path in out])
    assert drawn[0] == drawn[1] and len(drawn[0][0]) > 10_000
    ElementTree.fromstring(drawn[0][0])


@pytest.mark.parametrize("name", ["calibration", "patterns"])
def test_a_study_without_them_gets_a_figure_that_says_so(name, tmp_path):
    paths, grid = study({"rtn_bits~8_group~64": (rounded("rtn", 8), 0.001, 0.0001)}, tmp_path)
    out = tmp_path / "a.svg", tmp_path / "a.png"
    plugins.get("figures", name).module.draw(paths, grid, {}, {"name": name}, *out)
    assert out[0].stat().st_size < 20_000
