"""Calibration sets: which of them differ in nothing but their size, which in nothing but their text."""

from example_statements import calibrated_on, measured

from hemorrhage.analysis import calibrations
from hemorrhage.figures import calibration


def slug(name):
    return f"wanda_calibration~{name}_sparsity~0.5"


def points(folder, *names):
    return calibrations.points(measured(calibrated_on(dict.fromkeys(names, 0.5)), folder))


def test_sets_are_points_of_one_group_by_text_and_size(tmp_path):
    found = points(tmp_path, "near-8", "near-32", "far-32", "far-8")
    assert [(point.near, point.sequences) for point in found] == [(True, 8), (True, 32), (False, 8), (False, 32)]
    assert {point.group for point in found} == {"wanda · sparsity 0.5"}
    assert len({point.line for point in found}) == 2


def test_a_set_that_joins_articles_otherwise_is_on_a_line_of_its_own(tmp_path):
    found = points(tmp_path, "default", "near-8", "near-32")
    by_line = {}
    for point in found:
        by_line.setdefault(point.line, []).append(point.sequences)
    assert by_line == {(False, "near", "article", 128): [16], (False, "near", "contiguous", 128): [8, 32]}


def test_pairs_of_texts_are_equal_in_number_length_and_joining(tmp_path):
    found = measured(
        calibrated_on(dict.fromkeys(("default", "near-8", "far-8", "far-16", "far-long-8"), 0.5)), tmp_path
    )
    assert calibrations.near_and_far(found) == [(slug("near-8"), slug("far-8"))]


def test_one_set_alone_is_no_comparison(tmp_path):
    assert points(tmp_path, "near-8") == []


def test_a_line_is_named_by_its_text_and_by_what_tells_it_from_others(tmp_path):
    alike = points(tmp_path / "alike", "near-8", "far-8")
    assert list(calibration.lines(alike).values()) == ["near, near", "far, far"]
    other = points(tmp_path / "other", "default", "near-8", "far-8", "far-long-8")
    assert list(calibration.lines(other).values()) == [
        "near, near, an article each, 128 tokens",
        "near, near, articles in a row, 128 tokens",
        "far, far, articles in a row, 128 tokens",
        "far, far, articles in a row, 256 tokens",
    ]
