"""The published numbers: the project's estimators give on them what is known, and docs/reproduction.md says so."""

import math

import pytest

from hemorrhage.analysis import claims, phase_transition, published, reproduction

KNOWN = {
    "llm_pruner_wo_ft": 0.285,
    "sleb": 0.308,
    "slicegpt_wo_ft": 0.424,
    "slicegpt": 0.454,
    "flap_wifv": 0.434,
    "ria": 0.522,
}  # s0 with the round parameters fixed, where it is not the published one


@pytest.mark.parametrize("row", reproduction.crossings(), ids=lambda row: f"{row[0]}-{row[1]}")
def test_tables_cross_every_tolerance_where_they_are_known_to(row):
    _, _, expected, found = row
    for name, value in expected.items():
        assert math.isnan(found[name]) if math.isnan(value) else found[name] == pytest.approx(value, abs=0.005)


@pytest.mark.parametrize("method", ["sparsegpt", "wanda", "admm", "wanda_owl"])
def test_fits_with_round_values_fixed_give_the_published_transition(method):
    series = published.figures(method)
    found = phase_transition.fit(
        series.levels,
        series.perplexity,
        tail=published.tail(method),
        fixed=published.round_values(method),
        leave_one_out=False,
    )
    assert published.round_values(method)
    assert found.s0 == pytest.approx(published.fits()[method]["s0"], abs=0.005)


@pytest.mark.parametrize("method", KNOWN)
def test_the_other_fits_differ_by_what_is_known(method):
    series = published.figures(method)
    found = phase_transition.fit(
        series.levels,
        series.perplexity,
        tail=published.tail(method),
        fixed=published.round_values(method),
        leave_one_out=False,
    )
    assert found.s0 == pytest.approx(KNOWN[method], abs=0.002)


def test_the_published_parameters_give_the_published_curve():
    for method, fit in published.fits().items():
        assert fit["a"] * fit["s0"] ** fit["b"] == pytest.approx(fit["ppl_s0"], rel=1e-3), method


def test_statements_come_out_as_counted_by_hand():
    found = claims.outcomes()
    assert set(found) == {row["id"] for row in published.rows("qualitative_claims")}
    assert "6 of 6" in found["A6"][1] and "5 of 6" in found["A6"][1] and "1 of 7" in found["A6"][1]
    assert "flap_wifv 2.9" in found["A3"][1]
    assert "5 of 9" in found["A8"][1] and "7 of 9" in found["A8"][1]
    assert {name for name, (verdict, _) in found.items() if verdict == "not testable here"} == {"A9"}


def test_the_page_says_what_the_run_says():
    page = reproduction.TARGET.read_text(encoding="utf8")
    for name, (verdict, numbers) in claims.outcomes().items():
        assert f"| {name} |" in page and f"| {verdict} | {numbers} |" in page
    assert reproduction._crossings() in page
