"""The qualitative statements of the paper and of the field, tested on what this study measured.

Every statement is a number of comparisons between variants, of KL or ΔNLL, paired by window. One that the windows show
to be the other way makes the statement fail; one that they do not tell leaves it undecided. Statements that the study
has no variants for are left out. Origins: ``resources/published/qualitative_claims.tsv`` (A1 to A9).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd

from hemorrhage.analysis import calibrations, orderings, tables
from hemorrhage.analysis.orderings import FAILS, HOLDS, OPEN, Measured, Tally
from hemorrhage.analysis.statement_slopes import SPARSITY, WEIGHTS, cliffs, two_bits

COLUMNS = ["model", "statement", "verdict", "held", "comparisons", "against"]
FREE = {"pruning": "magnitude", "quantization": "rtn"}  # the method without calibration of a family
HARD = {"sparsity": lambda level: level >= 0.5, "bits": lambda level: level <= 3}
VERDICTS = (HOLDS, FAILS, OPEN)
NEAR_LOSSLESS = 1.005  # perplexity over the reference's
HALF = 0.4, 0.6  # of the weights, gone: a model has only so many blocks and heads to cut
LOSSLESS = 1e-6  # nats; float32 in another order of summation stays below it


def judge(metrics_path: str, windows_path: str, cuts_path: str, study: Mapping[str, Any], out: str) -> None:
    """Write statements.tsv: a row per model and statement that the study can test.

    Args:
        metrics_path: metrics.tsv.
        windows_path: windows.parquet.
        cuts_path: cuts.tsv.
        study: the grid.
        out: statements.tsv; ``against`` lists the comparisons that did not hold, after a remark on all if there is one.
    """
    rows = [
        [own.model, statement, tally.verdict, len(tally.held), tally.total, tally.against]
        for own in orderings.of_models(metrics_path, windows_path, study, cuts_path)
        for statement, tally in outcomes(own).items()
    ]
    tables.write(pd.DataFrame(rows, columns=COLUMNS), out)


def read(path: str) -> pd.DataFrame:
    """Read statements.tsv with its counts as numbers."""
    frame = tables.read(path)
    for column in ("held", "comparisons"):
        frame[column] = pd.to_numeric(frame[column])
    return frame


def outcomes(measured: Measured) -> dict[str, Tally]:
    """Return statement -> its comparisons, of those that have any."""
    statements: dict[str, Callable[[Measured], Tally]] = {
        "No step to a harder level is shown to do less damage": monotone,
        "8 bits a weight are near lossless (perplexity within 0.5 %)": near_lossless,
        "Calibrated methods do less damage than magnitude and rounding at hard levels": calibrated,
        "Of one pruner, 50 % anywhere does less damage than 4:8, and 4:8 less than 2:4": patterns,
        "A1 Best of each family: 8 bits < 50 % of weights < 4:8 < 2:4 < half of the structure": families,
        "A2 4 bits a weight do less damage than any pruning of 70 %": four_bits,
        "A3 Pruning has a cliff: where perplexity doubles ΔNLL rises 5 times as fast as just before": cliffs,
        "A4 Magnitude collapses first, then Wanda, then SparseGPT and ADMM": collapses,
        "A5 From 3 to 2 bits more is lost than from 4 to 3": two_bits,
        "A7 Calibration on a far text does more damage": far_calibration,
        "A9 Identity blocks lose nothing": identity_blocks,
        "A9 Repeated blocks lose something": repeated_blocks,
    }
    found = {statement: run(measured) for statement, run in statements.items()}
    return {statement: tally for statement, tally in found.items() if tally.total}


def monotone(measured: Measured) -> Tally:
    """No level may be shown to do less damage than the milder one before it.

    A step that the windows do not tell from none holds too, as it is not shown to fall; the remark counts such steps.
    """
    tally, found = Tally(), {HOLDS: 0, OPEN: 0, FAILS: 0}
    for curve in measured.curves:
        for milder, harder in itertools.pairwise(curve.variants):
            rises = orderings.less_damage(measured.difference(milder, harder))
            found[rises] += 1
            text = f"{measured.name(harder)} does less than {measured.name(milder)}"
            tally.add(FAILS if rises == FAILS else HOLDS, text)
    if found[OPEN]:
        tally.remark = f"{found[HOLDS]} shown to rise, {found[OPEN]} not told apart, {found[FAILS]} shown to fall"
    return tally


def near_lossless(measured: Measured) -> Tally:
    """Quantizers of weights at 8 bits, by the interval of the perplexity ratio."""
    tally = Tally()
    for slug in _at(measured, WEIGHTS, 8.0) + [s for s, step in measured.singles.items() if step["method"] == "int8"]:
        ratio = measured.value(slug, "perplexity_ratio")
        verdict = HOLDS if ratio["high"] <= NEAR_LOSSLESS else FAILS if ratio["low"] > NEAR_LOSSLESS else OPEN
        tally.add(verdict, f"{measured.name(slug)} ×{ratio['value']:.4f} [{ratio['low']:.4f}, {ratio['high']:.4f}]")
    return tally


def calibrated(measured: Measured) -> Tally:
    """At every hard level, each calibrated method against the one of its family that sees no data."""
    chains = []
    for slug, step in measured.singles.items():
        free, axis = FREE.get(_family(measured, slug)), measured.study["axes"].get(step["method"])
        level = measured.level(slug)
        if axis is None or level is None or "calibration" not in step["settings"] or step["method"] == free:
            continue
        if axis["unit"] not in (WEIGHTS, SPARSITY) or not HARD[axis["setting"]](level):
            continue
        rivals = [
            other
            for other, rival in measured.singles.items()
            if rival["method"] == free
            and measured.level(other) == level
            and all(
                rival["settings"].get(key) == step["settings"].get(key) for key in ("group", "pattern", "symmetric")
            )
        ]
        chains += [(slug, rival) for rival in rivals]
    return measured.ordered(chains)


def patterns(measured: Measured) -> Tally:
    """Unstructured, 4:8 and 2:4 of one method and its other settings, at the same share of zeros."""
    order = ("None", "4:8", "2:4")
    return measured.ordered([[own[key] for key in order if key in own] for own in measured.by_pattern().values()])


def families(measured: Measured) -> Tally:
    """The best variant of each family at 8 bits, or with one half gone."""
    half = [slug for slug in _at(measured, SPARSITY, 0.5) if "pattern" in measured.singles[slug]["settings"]]
    groups = [_at(measured, WEIGHTS, 8.0)]
    groups += [
        [s for s in half if str(measured.singles[s]["settings"]["pattern"]) == p] for p in ("None", "4:8", "2:4")
    ]
    groups.append(
        [slug for slug in measured.singles if _family(measured, slug) == "structure" and _halves(measured, slug)]
    )
    chain = [measured.best(group) for group in groups if group]
    return measured.ordered([chain] if len(chain) == len(groups) else [])


def four_bits(measured: Measured) -> Tally:
    """The worst quantizer of weights at 4 bits against the best pruning of 70 %."""
    four, pruned = _at(measured, WEIGHTS, 4.0), _at(measured, SPARSITY, 0.7)
    if not four or not pruned:
        return Tally()
    return measured.ordered([(slug, measured.best(pruned)) for slug in four])


def collapses(measured: Measured) -> Tally:
    """Magnitude against Wanda, and Wanda against SparseGPT and ADMM, at the levels that both have, from 30 % on.

    Every arm of a method, with other settings, is compared with every arm of the other.
    """
    plain: dict[tuple[str, float], list[str]] = {}
    for slug, step in measured.singles.items():
        level = measured.level(slug)
        if orderings.is_plain(step) and step["settings"].get("pattern", "") is None and level is not None:
            plain.setdefault((step["method"], level), []).append(slug)
    pairs = (("wanda", "magnitude"), ("sparsegpt", "wanda"), ("admm", "wanda"))
    levels = sorted({level for _, level in plain if 0.3 <= level <= 0.8})
    return measured.ordered(
        pair
        for level in levels
        for less, more in pairs
        for pair in itertools.product(plain.get((less, level), []), plain.get((more, level), []))
    )


def far_calibration(measured: Measured) -> Tally:
    """The same method at the same level, calibrated on the text of the evaluation and on another one."""
    return measured.ordered(calibrations.near_and_far(measured))


def identity_blocks(measured: Measured) -> Tally:
    """KL of blocks that give their input back."""
    tally = Tally()
    for slug, step in measured.singles.items():
        if step["method"] == "identity_blocks":
            kl = float(measured.value(slug)["value"])
            tally.add(HOLDS if kl < LOSSLESS else FAILS, f"{measured.name(slug)} {kl:.3g}")
    return tally


def repeated_blocks(measured: Measured) -> Tally:
    """KL of blocks that run again: above what rounding alone does, or below it, by its interval."""
    tally = Tally()
    for slug, step in measured.singles.items():
        if step["method"] in ("repeat_blocks", "interleave_blocks", "passthrough", "upscale_depth"):
            kl = measured.value(slug)
            verdict = HOLDS if kl["low"] > LOSSLESS else FAILS if kl["high"] < LOSSLESS else OPEN
            tally.add(verdict, f"{measured.name(slug)} {float(kl['value']):.3g}")
    return tally


def _family(measured: Measured, slug: str) -> str:
    return str(measured.study["variants"][slug]["family"])


def _at(measured: Measured, unit: str, level: float) -> list[str]:
    """The variants of one step at a level of an axis of this unit, calibrated as usual."""
    return [
        slug
        for slug, step in measured.singles.items()
        if measured.study["axes"].get(step["method"], {}).get("unit") == unit
        and measured.level(slug) == level
        and orderings.is_plain(step)
    ]


def _halves(measured: Measured, slug: str) -> bool:
    """Whether a structural cut took about half of the weights of all targets."""
    return HALF[0] <= measured.cuts.get((measured.model, slug), 0.0) <= HALF[1]
