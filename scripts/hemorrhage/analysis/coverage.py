"""How often a nominal 95 % interval holds the truth, in simulation: writes docs/coverage.md and docs/coverage.svg.

``python -m hemorrhage.analysis.coverage [windows.parquet]``. Token losses are skewed (gamma), with a lognormal
factor per window, as losses of one article do; the mean is 1. With the windows of a study the table says which spread
is real.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from hemorrhage import plugins
from hemorrhage.analysis import statistics

DOCS = plugins.PROJECT / "docs"
WINDOWS, TOKENS = 16, 255  # of the default study
SHAPE = 0.5  # of the gamma distribution: standard deviation 1.41 times the mean, as KL per token has
SIGMAS = (0.0, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0)
REPEATS = 4000
KEPT = 400  # studies drawn at a time
TARGET = (0.92, 0.97)
NAMES = {
    "bootstrap-t": "bootstrap-t, windows (used)",
    "log": "bootstrap-t on the logarithm",
    "student": "Student's t, windows",
    "percentile": "percentile bootstrap, windows",
    "tokens": "tokens taken as independent",
}
Interval = Callable[[np.ndarray], tuple[float, float]]


def draw(sigma: float, generator: np.random.Generator, studies: int, windows: int = WINDOWS) -> np.ndarray:
    """Return token losses [studies, windows, tokens] with mean 1; sigma is that of the windows' logarithms."""
    factor = np.exp(sigma * generator.standard_normal((studies, windows, 1)) - sigma**2 / 2)
    return generator.gamma(SHAPE, 1 / SHAPE, (studies, windows, TOKENS)) * factor


def intervals(windows: int = WINDOWS) -> dict[str, Interval]:
    """Return the intervals by name; each maps token losses [windows, tokens] to (low, high)."""
    index = statistics.index_matrix("simulation", "coverage", windows)
    counts = np.full(windows, float(TOKENS))

    def bootstrap_t(tokens: np.ndarray) -> tuple[float, float]:
        found = statistics.mean_interval(tokens.sum(1), counts, index)
        return found.low, found.high

    def log(tokens: np.ndarray) -> tuple[float, float]:
        means = tokens.mean(1)
        value, drawn = means.mean(), means[index]
        error = drawn.std(1, ddof=1) / math.sqrt(windows) / drawn.mean(1)
        pivots = np.log(drawn.mean(1) / value) / error
        se = means.std(ddof=1) / math.sqrt(windows) / value
        upper, lower = np.quantile(pivots, (0.025, 0.975))
        return value * math.exp(-lower * se), value * math.exp(-upper * se)

    def student(tokens: np.ndarray) -> tuple[float, float]:
        found = statistics.mean_interval(tokens.sum(1), counts)
        return found.low, found.high

    def percentile(tokens: np.ndarray) -> tuple[float, float]:
        low, high = np.quantile(tokens.mean(1)[index].mean(1), (0.025, 0.975))
        return low, high

    def independent(tokens: np.ndarray) -> tuple[float, float]:
        half = 1.96 * tokens.std(ddof=1) / math.sqrt(tokens.size)
        return tokens.mean() - half, tokens.mean() + half

    return {"bootstrap-t": bootstrap_t, "log": log, "student": student, "percentile": percentile, "tokens": independent}


def simulate(sigma: float, repeats: int = REPEATS, windows: int = WINDOWS, seed: int = 1) -> dict[str, float]:
    """Return the share of intervals that hold the true mean, by name."""
    generator = np.random.default_rng([seed, round(1000 * sigma), windows])
    used, hits = intervals(windows), dict.fromkeys(NAMES, 0)
    for start in range(0, repeats, KEPT):
        for tokens in draw(sigma, generator, min(KEPT, repeats - start), windows):
            for name, interval in used.items():
                low, high = interval(tokens)
                hits[name] += int(low <= 1 <= high)
    return {name: count / repeats for name, count in hits.items()}


def spread(sigma: float) -> float:
    """Return the coefficient of variation of a window's mean loss under ``draw``."""
    factor = math.expm1(sigma**2)
    return math.sqrt(factor + (1 + factor) / SHAPE / TOKENS)


def measured(path: str | Path) -> dict[str, tuple[float, float, float]]:
    """Return least, median and largest coefficient of variation of window means over a study's variants, by metric."""
    import pandas as pd

    frame = pd.read_parquet(path)
    frame = frame[(frame.probe == "fidelity") & frame.metric.isin(["kl", "nll"])]
    frame = frame.assign(mean=frame["sum"] / frame["count"])
    grouped = frame.groupby(["metric", "model", "variant"])["mean"]
    ratios = (grouped.std() / grouped.mean()).replace([np.inf, -np.inf], np.nan).dropna()
    return {
        str(metric): (float(group.min()), float(group.median()), float(group.max()))
        for metric, group in ratios.groupby("metric")
    }


def write(path: str | Path | None = None, docs: Path = DOCS, repeats: int = REPEATS) -> None:
    """Write coverage.md and coverage.svg into ``docs``; ``path`` is a study's windows.parquet."""
    from hemorrhage import files

    found = {sigma: simulate(sigma, repeats) for sigma in SIGMAS}
    real = measured(path) if path else {}
    files.write_text(docs / "coverage.md", _text(found, real, repeats))
    _figure(found, real, docs / "coverage.svg")


def _text(found: dict[float, dict[str, float]], real: dict[str, tuple[float, float, float]], repeats: int) -> str:
    noise = 1.96 * math.sqrt(0.95 * 0.05 / repeats)
    lines = [
        "# Coverage of the intervals",
        "",
        "Written by `python -m hemorrhage.analysis.coverage`, with a study's windows as argument. Share of "
        "nominal "
        f"95 % intervals that hold the true mean, over {repeats} simulated studies of {WINDOWS} windows × "
        f"{TOKENS} tokens (±{100 * noise:.1f} % of simulation noise). Token losses are gamma distributed, with a "
        f"standard deviation of {1 / math.sqrt(SHAPE):.2f} times the mean, times a lognormal factor per window.",
        "",
        "| sigma of the factor | spread of window means | " + " | ".join(NAMES.values()) + " |",
        "|" + " --: |" * (2 + len(NAMES)),
    ]
    for sigma, shares in found.items():
        cells = " | ".join(f"{100 * shares[name]:.1f} %" for name in NAMES)
        lines.append(f"| {sigma:g} | {spread(sigma):.2f} | {cells} |")
    lines += ["", "Spread is the standard deviation of the windows' mean losses over their mean.", ""]
    if real:
        lines += [
            "Which row is real, from the windows of a study:",
            "",
            "| metric | least | median | largest |",
            "| :-- | --: | --: | --: |",
        ]
        lines += [f"| {name} | {low:.2f} | {middle:.2f} | {high:.2f} |" for name, (low, middle, high) in real.items()]
        worst = max(high for *_, high in real.values())
        inside = [shares["bootstrap-t"] for sigma, shares in found.items() if spread(sigma) <= max(worst, spread(0.2))]
        lines += [
            "",
            f"Up to the largest spread seen there, the interval used covers {100 * min(inside):.1f} to "
            f"{100 * max(inside):.1f} %.",
            "",
        ]
    lines += ["![coverage](coverage.svg)", ""]
    return "\n".join(lines)


def _figure(found: dict[float, dict[str, float]], real: dict[str, tuple[float, float, float]], svg: Path) -> None:
    from hemorrhage import files
    from hemorrhage.reporting import plotting

    with plotting.figure(1, 1, (7.5, 3.8)) as (drawn, axes):
        panel = axes[0, 0]
        panel.axhspan(*TARGET, color=plotting.GRID, zorder=0)
        panel.axhline(0.95, color=plotting.MUTED, linewidth=0.9)
        spreads = [spread(sigma) for sigma in found]
        for place, (name, text) in enumerate(NAMES.items()):
            panel.plot(
                spreads,
                [shares[name] for shares in found.values()],
                label=text,
                color=plotting.PALETTE[place],
                marker=plotting.MARKERS[place],
            )
        for name, (low, _, high) in real.items():
            at = 0.56 if name == "kl" else 0.52
            panel.plot([low, high], [at, at], color=plotting.INK, linewidth=3, solid_capstyle="butt")
            panel.annotate(
                f"{name} of the study", (high, at), xytext=(5, 0), textcoords="offset points", va="center", fontsize=8
            )
        panel.set_ylim(0.45, 1.0)
        panel.set_xlabel("spread of window means (standard deviation ÷ mean)")
        panel.set_ylabel("coverage of a nominal 95 %")
        panel.legend(fontsize=7.5, loc="center right")
        with files.atomic(svg) as part:
            drawn.savefig(part, format="svg", metadata={"Date": None, "Creator": None})


if __name__ == "__main__":
    write(sys.argv[1] if len(sys.argv) > 1 else None)
