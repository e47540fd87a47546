"""A made-up study of single steps: damage per window chosen by hand, written as the tables that statements read."""

import numpy as np
import pandas as pd

from hemorrhage.analysis import cuts, orderings, statements, statistics, tables

BLOCKS, TOKENS = 16, 100.0
AXES = {
    "pruning": ("sparsity", 0, True, False, "share of weights"),
    "quantization": ("bits", None, False, True, "bits per weight"),
    "structure": ("ratio", 0, True, False, "share of weights"),
    "blocks": ("blocks", 0, True, True, "blocks dropped"),
    "expansion": ("added", 0, True, True, "blocks added"),
}
KINDS = {
    "rtn": "quantization",
    "gptq": "quantization",
    "flap": "structure",
    "drop_blocks": "blocks",
    "identity_blocks": "expansion",
    "repeat_blocks": "expansion",
}
ROW = {"window": 128, "joining": "contiguous"}
SETS = {
    "default": {"text": "near", "windows": 16, **ROW, "joining": "article"},
    "near-8": {"text": "near", "windows": 8, **ROW},
    "near-32": {"text": "near", "windows": 32, **ROW},
    "far-8": {"text": "far", "windows": 8, **ROW},
    "far-16": {"text": "far", "windows": 16, **ROW},
    "far-32": {"text": "far", "windows": 32, **ROW},
    "far-long-8": {"text": "far", "windows": 8, **ROW, "window": 256},
}


def pruned(method, sparsity, pattern=None, **more):
    """A step that sets weights to zero."""
    own = {} if method == "magnitude" else {"calibration": "default", "allocation": "uniform"}
    return {"method": method, "settings": {"sparsity": sparsity, "pattern": pattern, **own, **more}}


def rounded(method, bits, **more):
    """A step that rounds weights."""
    own = {} if method == "rtn" else {"calibration": "default"}
    return {"method": method, "settings": {"bits": bits, "group": 64, "symmetric": False, **own, **more}}


def calibrated_on(losses, spread=0.01):
    """Steps of Wanda at 50 %: name of the calibration set -> damage."""
    names = {name: "" if name == "default" else f"calibration~{name}_" for name in losses}
    return {
        f"wanda_{names[name]}sparsity~0.5": (pruned("wanda", 0.5, calibration=name), loss, spread)
        for name, loss in losses.items()
    }


def study(steps, folder, blocks=BLOCKS, gone=()):
    """Write the tables of variants; returns their paths and the grid.

    Args:
        steps: slug -> (step, damage in nats, its spread over windows); the damage is a number or one per window [B],
            and both KL and ΔNLL.
        folder: where the tables go.
        blocks: number of windows.
        gone: pairs (slug, share of the weights that a cut took).
    """
    steps = {"identity": ({"method": "identity", "settings": {}}, 0.0, 0.0), **steps}
    rows, windows = [], []
    for slug, (step, damage, spread) in steps.items():
        noise = spread * np.random.default_rng(len(slug) + sum(map(ord, slug))).standard_normal(blocks)
        sums = np.maximum(damage + noise, 0) * TOKENS
        rows += _rows(slug, step, statistics.mean_interval(sums, np.full(blocks, TOKENS)))
        shared = {"model": "m", "variant": slug, "probe": "fidelity", "window": range(blocks), "sum": sums}
        windows += [pd.DataFrame({**shared, "metric": metric, "count": TOKENS}) for metric in ("kl", "delta_nll")]
    folder.mkdir(exist_ok=True, parents=True)
    names = {"metrics": "metrics.tsv", "windows": "windows.parquet", "cuts": "cuts.tsv", "statements": "statements.tsv"}
    paths = {key: folder / name for key, name in names.items()}
    tables.write(pd.DataFrame(rows)[tables.METRICS], paths["metrics"])
    tables.write(pd.DataFrame([("m", *cut) for cut in gone], columns=cuts.COLUMNS), paths["cuts"])
    pd.concat(windows)[tables.WINDOWS].to_parquet(paths["windows"], index=False)
    return paths, _grid({slug: step for slug, (step, *_) in steps.items()})


def measured(steps, folder, blocks=BLOCKS, gone=()):
    """What was measured of the study's one model."""
    paths, grid = study(steps, folder, blocks, gone)
    return orderings.of_models(paths["metrics"], paths["windows"], grid, paths["cuts"])[0]


def judged(steps, folder):
    """Statement -> (verdict, held, comparisons)."""
    paths, grid = study(steps, folder)
    read = (str(paths[name]) for name in ("metrics", "windows", "cuts"))
    statements.judge(*read, grid, str(paths["statements"]))
    return {
        row.statement: (row.verdict, row.held, row.comparisons)
        for row in tables.rows(statements.read(str(paths["statements"])))
    }


def starting(found, words):
    """The value of the statement that starts with these words."""
    return next(value for statement, value in found.items() if statement.startswith(words))


def _kind(method):
    return KINDS.get(method, "pruning")


def _grid(steps):
    methods = {step["method"] for step in steps.values()} - {"identity"}
    families = {"blocks": "structure"}
    names = ("setting", "harmless", "rises", "integer", "unit")
    return {
        "variants": {
            slug: {"family": families.get(_kind(s["method"]), _kind(s["method"]))} for slug, s in steps.items()
        },
        "axes": {method: dict(zip(names, AXES[_kind(method)], strict=True)) for method in methods},
        "repairs": {method: [] for method in methods},
        "leaves_reference": ["identity"],
        "recipes": {slug: [step] if slug != "identity" else [] for slug, step in steps.items()},
        "calibrations": SETS,
        "evaluation_text": "near",
    }


def _rows(slug, step, estimate):
    """The rows of metrics.tsv of one variant; a slug ends with its level, or has a pattern that fixes it."""
    walked = f"{slug}_sparsity~*" if "pattern~" in slug else slug.rsplit("~", 1)[0] + "~*"
    level = step["settings"].get(AXES[_kind(step["method"])][0], "")
    if slug == "identity":
        walked, level = "", ""
    shared = dict.fromkeys(tables.METRICS, "") | {"model": "m", "variant": slug, "probe": "fidelity"}
    shared |= {"sweep": walked, "level": level, "method": step["method"], "family": "x", "protocol": "p"}
    found = {"kl": estimate, "delta_nll": estimate, "perplexity_ratio": statistics.exponential(estimate)}
    return [{**shared, "metric": metric, **vars(value)} for metric, value in found.items()]
