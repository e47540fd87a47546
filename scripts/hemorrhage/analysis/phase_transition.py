"""The phase-transition point: where perplexity along an axis turns from slow growth to exponential growth.

Two piecewise forms, continuous at s0 and fitted by least squares in ln PPL; s is the distance from the harmless end:

- ``power``, of "Phase transitions in large language model compression" (npj Artificial Intelligence 2, 21, 2026):
  PPL = a·s^b up to s0, beyond it PPL(s0)·exp(k1·(s - s0) + k2·(s - s0)²). It forces PPL(0) = 0, so the
  reference cannot enter.
- ``dense``: PPL = PPL_dense·exp(α·s^β) up to s0, with the same tail. It starts from the reference.

Without fixed parameters s0 moves by up to 0.19 of sparsity with the form of the tail, so a free fit carries the
range of s0 over fits that leave one level out. That is no confidence interval; the tolerance estimator stands beside.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy import optimize

FEWEST_LEVELS = 8  # for a study; the numbers of parameters alone would allow 6
FEWEST_POINTS = 6
POWER, DENSE = "power", "dense"
EXPONENTIAL, QUADRATIC = "exponential", "quadratic"
FIRST = {POWER: ("ln_a", "b"), DENSE: ("alpha", "beta")}
LINEAR = {POWER: ("ln_a", "b", "k1", "k2"), DENSE: ("alpha", "k1", "k2")}
BETAS = np.geomspace(0.25, 16, 25)
STEEPER = 2.0  # a curve without any kink gets about 1.3 times steeper over the next tenth
EXACT = 1e-5  # nats; residuals below that are equally good
STEPS = 241  # places at which s0 is tried before it is refined


@dataclass(frozen=True)
class Fit:
    """A piecewise fit.

    Attributes:
        form: "power" or "dense".
        tail: "exponential" (k2 = 0) or "quadratic".
        s0: the phase-transition point as a distance from the harmless end.
        parameters: of the form: a, b or alpha, beta, and k1, k2.
        error: root mean square of the residuals of ln PPL, in nats.
        steeper: mean slope of ln PPL over the next tenth of the farthest level beyond s0, divided by the slope just
            before s0.
        supported: True if the slope at least doubles there and Schwarz's criterion prefers two branches to one.
        low: smallest s0 of this fit and those with one level left out; nan if it was not asked for.
        high: largest.
    """

    form: str
    tail: str
    s0: float
    parameters: dict[str, float]
    error: float
    steeper: float
    supported: bool = True
    low: float = math.nan
    high: float = math.nan

    def log_perplexity(self, s: np.ndarray, dense: float = math.nan) -> np.ndarray:
        """Return ln PPL at distances s; ``dense`` is the reference's perplexity, which the form "dense" needs."""
        near, beyond = np.minimum(s, self.s0), np.maximum(np.asarray(s, dtype=float) - self.s0, 0)
        p = self.parameters
        if self.form == POWER:
            start = math.log(p["a"]) + p["b"] * np.log(near)
        else:
            start = math.log(dense) + p["alpha"] * near ** p["beta"]
        return start + p["k1"] * beyond + p["k2"] * beyond**2


def fit(
    s: np.ndarray,
    perplexity: np.ndarray,
    dense: float | None = None,
    tail: str | None = None,
    fixed: Mapping[str, float] | None = None,
    leave_one_out: bool = True,
) -> Fit:
    """Return the piecewise fit of a curve.

    Args:
        s: [L] distances from the harmless end, all above 0, in any order.
        perplexity: [L], finite.
        dense: perplexity of the reference; with it the form is "dense", without it "power".
        tail: "exponential", "quadratic", or None for the one that Schwarz's criterion prefers.
        fixed: parameters that are not fitted: s0, k1, k2, and a, b or alpha, beta.
        leave_one_out: fit again without each level for ``low`` and ``high``.

    Raises:
        ValueError: fewer than ``FEWEST_POINTS`` levels; numbers that are not positive and finite; a parameter that
            the form does not have.
    """
    order = np.argsort(s)
    s, logs = np.asarray(s, dtype=float)[order], np.asarray(perplexity, dtype=float)[order]
    _check(s, logs, dense)
    form = POWER if dense is None else DENSE
    target = np.log(logs) - (0.0 if dense is None else math.log(dense))
    given = _given(form, fixed or {})
    tails = (tail,) if tail else (EXPONENTIAL, QUADRATIC)
    tried = [_fit(s, target, form, kind, given) for kind in tails]
    best = min(tried, key=lambda found: _schwarz(found.error, _free(found, given), len(s)))
    one_branch = _schwarz(_one_branch(s, target, form, given), len({*FIRST[form]} - {*given}), len(s))
    supported = best.steeper >= STEEPER and _schwarz(best.error, _free(best, given), len(s)) < one_branch
    best = dataclasses.replace(best, supported=supported)
    if not leave_one_out:
        return best
    kept = [np.arange(len(s)) != left for left in range(len(s))]
    places = [_fit(s[keep], target[keep], form, best.tail, given).s0 for keep in kept]
    return dataclasses.replace(best, low=min(best.s0, *places), high=max(best.s0, *places))


def _check(s: np.ndarray, perplexity: np.ndarray, dense: float | None) -> None:
    if len(set(s.tolist())) < FEWEST_POINTS:
        raise ValueError(
            f"A piecewise fit needs at least {FEWEST_POINTS} levels beside the harmless end; "
            f"there are {len(set(s.tolist()))}."
        )
    values = np.concatenate([s, perplexity, [] if dense is None else [dense]])
    if not (np.isfinite(values) & (values > 0)).all():
        raise ValueError("A phase transition needs levels and perplexities that are finite and above 0.")


def _given(form: str, fixed: Mapping[str, float]) -> dict[str, float]:
    """The fixed parameters under the names of the linear problem."""
    known = {POWER: ("s0", "a", "b", "k1", "k2"), DENSE: ("s0", "alpha", "beta", "k1", "k2")}[form]
    for name in fixed:
        if name not in known:
            raise ValueError(f"The form '{form}' has no parameter '{name}'. Known: {', '.join(known)}.")
    return {
        "ln_a" if name == "a" else name: math.log(value) if name == "a" else float(value)
        for name, value in fixed.items()
    }


def _fit(s: np.ndarray, target: np.ndarray, form: str, tail: str, given: Mapping[str, float]) -> Fit:
    """Search s0 (and beta) on a grid, where the rest is linear, then refine the best place."""
    given = {**given, **({"k2": 0.0} if tail == EXPONENTIAL else {})}
    # As many levels beyond s0 as the tail has parameters, and two before it.
    places = np.linspace(s[1], s[-2 if tail == EXPONENTIAL else -3], STEPS)
    places = np.array([given["s0"]]) if "s0" in given else places
    shapes = np.array([given["beta"]]) if "beta" in given else BETAS if form == DENSE else np.array([1.0])
    grid = np.array(list(itertools.product(places, shapes)))
    errors, _ = _solve(s, target, form, given, grid)
    start = grid[int(np.argmin(errors))]
    free = [len(places) > 1, len(shapes) > 1]
    place = _refine(start, free, (places, shapes), lambda at: _solve(s, target, form, given, at[None])[0][0])
    errors, coefficients = _solve(s, target, form, given, place[None])
    parameters = {name: float(value) for name, value in zip(LINEAR[form], coefficients[0], strict=True)}
    if form == POWER:
        parameters["a"] = math.exp(parameters.pop("ln_a"))
    else:
        parameters["beta"] = float(place[1])
    s0 = float(place[0])
    return Fit(form, tail, s0, parameters, math.sqrt(errors[0] / len(s)), _steeper(s0, parameters, form, s[-1]))


def _refine(start: np.ndarray, free: list[bool], axes: tuple, error) -> np.ndarray:
    """Minimise around the best grid point, between its neighbours."""
    if not any(free):
        return start
    bounds = []
    for value, axis, moves in zip(start, axes, free, strict=True):
        at = int(np.argmin(np.abs(axis - value)))
        ends = (axis[max(at - 1, 0)], axis[min(at + 1, len(axis) - 1)]) if moves else (value, value)
        bounds.append(ends)
    found = optimize.minimize(
        error,
        start,
        method="Nelder-Mead",
        bounds=bounds,
        options={"xatol": 1e-7, "fatol": 1e-14, "initial_simplex": _simplex(start, bounds)},
    )
    return found.x if found.fun <= error(start) else start


def _simplex(start: np.ndarray, bounds: list) -> np.ndarray:
    corners = [start.copy() for _ in range(3)]
    for axis in range(2):
        low, high = bounds[axis]
        corners[axis + 1][axis] += 0.5 * (high - start[axis] if high > start[axis] else low - start[axis])
    return np.array(corners)


def _solve(s: np.ndarray, target: np.ndarray, form: str, given: Mapping[str, float], grid: np.ndarray):
    """Least squares at each (s0, beta) of the grid [G, 2]: squared error [G], coefficients [G, K]."""
    s0, beta = grid[:, :1], grid[:, 1:]
    near, beyond = np.minimum(s, s0), np.maximum(s - s0, 0)
    first = [np.ones_like(near), np.log(near)] if form == POWER else [near**beta]
    columns = dict(zip(LINEAR[form], [*first, beyond, beyond**2], strict=True))
    rest = target - sum(given[name] * column for name, column in columns.items() if name in given)
    free = [name for name in columns if name not in given]
    values = {name: np.full(len(grid), given[name]) for name in columns if name in given}
    if free:
        matrix = np.stack([columns[name] for name in free], axis=-1)
        size = np.linalg.norm(matrix, axis=1, keepdims=True)
        size[size == 0] = 1.0
        solved = np.einsum("gkl,gl->gk", np.linalg.pinv(matrix / size), np.broadcast_to(rest, near.shape))
        solved /= size[:, 0]
        rest = rest - np.einsum("glk,gk->gl", matrix, solved)
        values |= {name: solved[:, place] for place, name in enumerate(free)}
    return (rest**2).sum(1), np.stack([values[name] for name in columns], axis=-1)


def _steeper(s0: float, parameters: Mapping[str, float], form: str, farthest: float) -> float:
    """The mean slope of the next tenth beyond s0 over the slope just before it."""
    if form == POWER:
        before = parameters["b"] / s0
    else:
        before = parameters["alpha"] * parameters["beta"] * s0 ** (parameters["beta"] - 1)
    after = parameters["k1"] + parameters["k2"] * farthest / 10
    return after / before if before > 0 else math.inf if after > 0 else math.nan


def _one_branch(s: np.ndarray, target: np.ndarray, form: str, given: Mapping[str, float]) -> float:
    """The root mean square residual of the first branch through all levels."""
    shapes = np.array([given["beta"]]) if "beta" in given else BETAS if form == DENSE else np.array([1.0])
    grid = np.array([(s[-1], shape) for shape in shapes])
    without_tail = {**given, "k1": 0.0, "k2": 0.0}
    start = grid[int(np.argmin(_solve(s, target, form, without_tail, grid)[0]))]
    place = _refine(
        start,
        [False, len(shapes) > 1],
        (grid[:1, 0], shapes),
        lambda at: _solve(s, target, form, without_tail, at[None])[0][0],
    )
    return math.sqrt(_solve(s, target, form, without_tail, place[None])[0][0] / len(s))


def _free(found: Fit, given: Mapping[str, float]) -> int:
    """The number of fitted parameters."""
    fixed = {"a" if name == "ln_a" else name for name in given} | ({"k2"} if found.tail == EXPONENTIAL else set())
    return len({"s0", *found.parameters} - fixed)


def _schwarz(error: float, free: int, levels: int) -> float:
    """Schwarz's information criterion of a least-squares fit; the variance is a parameter too."""
    return 2 * levels * math.log(max(error, EXACT)) + (free + 1) * math.log(levels)
