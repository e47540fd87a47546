"""Qualitative statements: judged on windows of a made-up study, and their figures."""

from xml.etree import ElementTree

import numpy as np
import pytest
from example_statements import calibrated_on, judged, measured, pruned, rounded, starting, study

from hemorrhage import plugins
from hemorrhage.analysis import statements
from hemorrhage.analysis.orderings import FAILS, HOLDS, OPEN


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


def test_arms_of_one_method_with_other_settings_have_chains_of_their_own(tmp_path):
    steps = {
        "sparsegpt_sparsity~0.5": (pruned("sparsegpt", 0.5, block=128), 0.3, 0.01),
        "sparsegpt_pattern~2-4": (pruned("sparsegpt", 0.5, "2:4", block=128), 0.6, 0.01),
        "sparsegpt_block~32_sparsity~0.5": (pruned("sparsegpt", 0.5, block=32), 0.8, 0.01),
        "sparsegpt_block~32_pattern~2-4": (pruned("sparsegpt", 0.5, "2:4", block=32), 0.5, 0.01),
    }
    found = measured(steps, tmp_path)
    assert found.by_pattern() == {
        "sparsegpt · block 128": {"None": "sparsegpt_sparsity~0.5", "2:4": "sparsegpt_pattern~2-4"},
        "sparsegpt · block 32": {"None": "sparsegpt_block~32_sparsity~0.5", "2:4": "sparsegpt_block~32_pattern~2-4"},
    }
    tally = statements.patterns(found)
    assert (len(tally.held), len(tally.failed)) == (1, 1)


COLLAPSE = {
    "magnitude_sparsity~0.5": (pruned("magnitude", 0.5), 0.9, 0.01),
    "wanda_sparsity~0.5": (pruned("wanda", 0.5), 0.5, 0.01),
    "sparsegpt_sparsity~0.5": (pruned("sparsegpt", 0.5, block=128), 0.3, 0.01),
    "wanda_sparsity~0.2": (pruned("wanda", 0.2), 0.5, 0.01),  # below 30 % nothing has collapsed
    "magnitude_sparsity~0.2": (pruned("magnitude", 0.2), 0.1, 0.01),
}


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({}, (2, 0, 0)),
        ({"sparsegpt_block~32_sparsity~0.5": (pruned("sparsegpt", 0.5, block=32), 0.7, 0.01)}, (2, 1, 0)),
        ({"admm_sparsity~0.5": (pruned("admm", 0.5), 0.5, 0.2)}, (2, 0, 1)),
        ({"admm_pattern~2-4": (pruned("admm", 0.5, "2:4"), 9.0, 0.01)}, (2, 0, 0)),
    ],
    ids=["in order", "another arm is not", "not told apart", "a pattern is another subject"],
)
def test_every_arm_of_a_pruner_is_held_to_the_order_of_collapse(more, expected, tmp_path):
    tally = statements.collapses(measured({**COLLAPSE, **more}, tmp_path))
    assert (len(tally.held), len(tally.failed), len(tally.undecided)) == expected


def rising(middle, spread=0.01):
    return {
        "magnitude_sparsity~0.1": (pruned("magnitude", 0.1), 0.3, spread),
        "magnitude_sparsity~0.3": (pruned("magnitude", 0.3), middle, spread),
        "magnitude_sparsity~0.5": (pruned("magnitude", 0.5), 0.6, spread),
    }


def test_a_step_that_is_shown_to_fall_makes_monotony_fail(tmp_path):
    assert starting(judged(rising(0.2), tmp_path), "No step to a harder level") == (FAILS, 2, 3)
    tally = statements.monotone(measured(rising(0.2), tmp_path))
    assert tally.against == "magnitude · sparsity 0.3 does less than magnitude · sparsity 0.1"


def test_a_step_that_is_not_told_from_none_is_no_fall_and_is_counted_by_itself(tmp_path):
    tally = statements.monotone(measured(rising(0.3), tmp_path))
    assert (tally.verdict, len(tally.held), tally.total) == (HOLDS, 3, 3)
    assert tally.against == "2 shown to rise, 1 not told apart, 0 shown to fall"


def test_steps_that_are_all_shown_to_rise_need_no_remark(tmp_path):
    tally = statements.monotone(measured(rising(0.4), tmp_path))
    assert (tally.verdict, len(tally.held), tally.against) == (HOLDS, 3, "")


@pytest.mark.parametrize(("kl", "verdict"), [(0.001, HOLDS), (0.02, FAILS)])
def test_eight_bits_are_near_lossless_by_the_interval_of_perplexity(kl, verdict, tmp_path):
    steps = {"rtn_bits~8_group~64": (rounded("rtn", 8), kl, 0.0005)}
    assert starting(judged(steps, tmp_path), "8 bits") == (verdict, int(verdict == HOLDS), 1)


def families(flap_gone, blocks_gone, eight=0.001, flap=2.0, spread=0.0):
    """One variant of each family; returns steps and cuts."""
    steps = {
        "rtn_group~64_bits~8": (rounded("rtn", 8), eight, spread),
        "wanda_sparsity~0.5": (pruned("wanda", 0.5), 0.3, 0.01),
        "magnitude_sparsity~0.5": (pruned("magnitude", 0.5), 5.0, 0.01),  # the best of a family counts
        "wanda_pattern~4-8": (pruned("wanda", 0.5, "4:8"), 0.5, 0.01),
        "wanda_pattern~2-4": (pruned("wanda", 0.5, "2:4"), 0.9, 0.01),
        "flap_ratio~0.5": ({"method": "flap", "settings": {"ratio": 0.5}}, flap, 0.01),
        "drop_blocks_blocks~15": ({"method": "drop_blocks", "settings": {"blocks": 15}}, 1.5, 0.01),
    }
    return steps, [("flap_ratio~0.5", flap_gone), ("drop_blocks_blocks~15", blocks_gone)]


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (families(0.5, 0.5), (4, 0, 0)),
        (families(0.5, 0.5, eight=0.4), (3, 1, 0)),
        (families(0.5, 0.3, flap=0.7), (3, 1, 0)),
        (families(0.5, 0.5, eight=0.3, spread=0.3), (3, 0, 1)),
    ],
    ids=["in order", "8 bits are worse", "a cut is better", "not told apart"],
)
def test_the_best_of_each_family_are_one_chain(made, expected, tmp_path):
    steps, gone = made
    tally = statements.families(measured(steps, tmp_path, gone=gone))
    assert (len(tally.held), len(tally.failed), len(tally.undecided)) == expected


@pytest.mark.parametrize(
    ("flap_gone", "blocks_gone", "last"), [(0.3, 0.5, "drop blocks"), (0.59, 0.7, "flap"), (0.3, 0.7, None)]
)
def test_half_of_the_structure_is_a_share_of_weights_whatever_the_level_counts(flap_gone, blocks_gone, last, tmp_path):
    steps, gone = families(flap_gone, blocks_gone)
    held = statements.families(measured(steps, tmp_path, gone=gone)).held
    assert (last is None and not held) or f"< {last}" in held[-1]


@pytest.mark.parametrize(("loss", "spread", "expected"), [(0.3, 0.01, (1, 0)), (2.0, 0.01, (0, 1)), (1.0, 0.5, (0, 0))])
def test_four_bits_are_compared_with_the_best_pruner_of_70_percent(loss, spread, expected, tmp_path):
    steps = {
        "rtn_group~64_bits~4": (rounded("rtn", 4), loss, spread),
        "wanda_sparsity~0.7": (pruned("wanda", 0.7), 1.0, 0.01),
        "magnitude_sparsity~0.7": (pruned("magnitude", 0.7), 5.0, 0.01),
    }
    tally = statements.four_bits(measured(steps, tmp_path))
    assert (len(tally.held), len(tally.failed)) == expected
    assert tally.total == 1


def added(method, blocks):
    return {"method": method, "settings": {"added": blocks}}


@pytest.mark.parametrize(
    ("kl", "verdict"),
    [(np.linspace(0.2, 0.3, 16), HOLDS), (0.0, FAILS), (0.1 * np.eye(16)[0], OPEN)],
    ids=["every window", "no window", "one window"],
)
def test_repeated_blocks_lose_something_if_the_windows_say_so(kl, verdict, tmp_path):
    found = measured({"repeat_blocks_added~2": (added("repeat_blocks", 2), kl, 0.0)}, tmp_path)
    assert statements.repeated_blocks(found).verdict == verdict


@pytest.mark.parametrize(("kl", "verdict"), [(1e-7, HOLDS), (0.01, FAILS)])
def test_identity_blocks_lose_nothing_but_rounding(kl, verdict, tmp_path):
    found = measured({"identity_blocks_added~2": (added("identity_blocks", 2), kl, 0.0)}, tmp_path)
    assert statements.identity_blocks(found).verdict == verdict


FAR = calibrated_on({"default": 0.3, "near-8": 0.35, "far-8": 0.6, "far-32": 0.5})
FAR["wanda_sparsity~0.3"] = (pruned("wanda", 0.3), 0.1, 0.01)


@pytest.mark.parametrize(("near", "expected"), [(0.35, (1, 0)), (0.9, (0, 1))])
def test_calibration_on_a_far_text_is_judged_at_equal_sets(near, expected, tmp_path):
    steps = calibrated_on({"default": 0.1, "near-8": near, "far-8": 0.6, "far-16": 0.5})
    tally = statements.far_calibration(measured(steps, tmp_path))
    assert (len(tally.held), len(tally.failed)) == expected


@pytest.mark.parametrize("name", ["calibration", "patterns"])
def test_the_figures_have_the_same_bytes_every_time(name, tmp_path):
    paths, grid = study(FAR, tmp_path)
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
