"""Phase transitions: planted points are found, the range of leaving one out, smooth curves, and what is refused."""

import math

import numpy as np
import pytest

from hemorrhage.analysis import phase_transition, tables, thresholds
from hemorrhage.analysis.curves import Curve

S = np.arange(0.05, 0.8, 0.05)
AXIS = {"setting": "sparsity", "harmless": 0.0, "rises": True, "integer": False, "unit": "share"}


def planted(s0=0.43, a=8.0, b=0.2, k1=6.0, k2=20.0, s=S):
    beyond = np.maximum(s - s0, 0)
    return a * np.minimum(s, s0) ** b * np.exp(k1 * beyond + k2 * beyond**2)


def from_dense(s0=0.43, alpha=0.3, beta=1.5, k1=6.0, s=S, dense=5.0):
    return dense * np.exp(alpha * np.minimum(s, s0) ** beta + k1 * np.maximum(s - s0, 0))


def test_the_power_form_finds_what_was_planted():
    found = phase_transition.fit(S, planted())
    assert found.tail == "quadratic" and found.supported
    assert found.s0 == pytest.approx(0.43, abs=1e-4)
    assert found.low <= found.s0 <= found.high and found.high - found.low < 1e-3
    assert [found.parameters[name] for name in ("a", "b", "k1", "k2")] == pytest.approx([8, 0.2, 6, 20], rel=1e-2)
    assert np.exp(found.log_perplexity(S)) == pytest.approx(planted(), rel=1e-4)


def test_the_dense_form_finds_what_was_planted():
    found = phase_transition.fit(S, from_dense(), dense=5.0)
    assert (found.form, found.tail) == ("dense", "exponential") and found.supported
    assert found.s0 == pytest.approx(0.43, abs=1e-3)
    assert found.parameters["beta"] == pytest.approx(1.5, abs=0.05)
    assert np.exp(found.log_perplexity(S, 5.0)) == pytest.approx(from_dense(), rel=1e-3)


def test_fixed_parameters_stay():
    found = phase_transition.fit(S, planted(), fixed={"k1": 2.0, "a": 9.0}, leave_one_out=False)
    assert found.parameters["k1"] == 2.0 and found.parameters["a"] == pytest.approx(9.0)
    assert phase_transition.fit(S, planted(), fixed={"s0": 0.5}, leave_one_out=False).s0 == 0.5


def test_the_order_of_the_levels_does_not_matter():
    order = np.random.default_rng(0).permutation(len(S))
    given = [
        phase_transition.fit(s, y, leave_one_out=False).s0 for s, y in ((S, planted()), (S[order], planted()[order]))
    ]
    assert given[0] == given[1]


def test_a_curve_without_a_kink_has_no_transition():
    smooth = 5.0 * np.exp(3 * S**4)
    assert not phase_transition.fit(S, smooth, dense=5.0, leave_one_out=False).supported


@pytest.mark.parametrize(
    ("s", "perplexity", "more", "message"),
    [
        (S[:5], planted()[:5], {}, "at least 6 levels"),
        (np.append(0.0, S), np.append(5.0, planted()), {}, "above 0"),
        (S, np.where(S > 0.7, np.inf, planted()), {}, "finite"),
        (S, planted(), {"fixed": {"beta": 1}}, "no parameter 'beta'"),
    ],
)
def test_what_cannot_be_fitted_is_refused(s, perplexity, more, message):
    with pytest.raises(ValueError, match=message):
        phase_transition.fit(s, perplexity, **more)


def sweep(perplexity, levels):
    frame = [
        {
            "model": "m",
            "variant": f"v{level}",
            "probe": "fidelity",
            "metric": "perplexity",
            "value": value,
            "se": 0.0,
            "low": value,
            "high": value,
            "blocks": 16,
            "protocol": "p",
        }
        for level, value in zip(levels, perplexity, strict=True)
    ]
    slugs = tuple(f"v{level}" for level in levels)
    curve = Curve("m", "magnitude_sparsity~*", "", "pruning", "magnitude", AXIS, "p", np.array(levels), slugs, True)
    return curve, tables.pd.DataFrame(frame)


def test_a_sweep_gets_a_row_per_form_with_the_leave_one_out_range():
    curve, metrics = sweep([5.0, *from_dense()], [0.0, *S])
    rows = {row["estimator"]: row for row in thresholds._transitions(curve, metrics)}
    dense = rows["phase-transition, dense form"]
    assert set(rows) == {"phase-transition, power form", "phase-transition, dense form"}
    assert dense["state"] == "leave-one-level-out range" and dense["levels"] == len(S)
    assert dense["low"] <= dense["threshold"] <= dense["high"]
    assert dense["inside"] == pytest.approx(0.4) and dense["outside"] == pytest.approx(0.45)


def test_fewer_than_eight_levels_give_none():
    curve, metrics = sweep([5.0, *from_dense()[:7]], [0.0, *S[:7]])
    rows = thresholds._transitions(curve, metrics)
    assert {row["state"] for row in rows} == {"too few levels"} and all(math.isnan(row["threshold"]) for row in rows)
