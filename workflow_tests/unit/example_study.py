"""A made-up study in the form that the pipeline writes: record files, window sums, floors, and its grid.

The numbers follow smooth damage curves with a shared difficulty per window, so that tables, thresholds, figures and
report can be tested without a model.
"""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np

from hemorrhage import files
from hemorrhage.analysis import cuts, mitigations, statements, statistics, tables, thresholds

MODEL, BLOCKS, TOKENS = "SmolLM2-135M-Instruct", 16, 255
PROTOCOL = {"window": 256, "stride": 256, "scored": "all", "bos": False, "joining": "article", "dtype": "float32"}
CRITERIA = {
    "kl_0.01": {"metric": "kl", "at": 0.01},
    "kl_0.1": {"metric": "kl", "at": 0.1},
    "kl_0.5": {"metric": "kl", "at": 0.5},
    "ppl_25%": {"metric": "delta_nll", "at": 0.2231},
}
SEVERITY = [["none", 0.01], ["trace", 0.05], ["mild", 0.25], ["moderate", 1.0], ["severe", 9.0]]
SETTINGS = {"criteria": CRITERIA, "severity": SEVERITY}
AXES = {
    **{
        name: {"setting": "sparsity", "harmless": 0.0, "rises": True, "integer": False, "unit": "share of weights"}
        for name in ("magnitude", "wanda", "gradient_aware")
    },
    "rtn": {"setting": "bits", "harmless": None, "rises": False, "integer": True, "unit": "bits per weight"},
    **{
        name: {"setting": "bits", "harmless": None, "rises": False, "integer": True, "unit": "bits per activation"}
        for name in ("static_activations", "dynamic_activations")
    },
    "drop_blocks": {"setting": "count", "harmless": 0, "rises": True, "integer": True, "unit": "dropped blocks"},
    "repeat_blocks": {"setting": "count", "harmless": 0, "rises": True, "integer": True, "unit": "repeated blocks"},
}
FAMILIES = {
    "identity": "control",
    "magnitude": "pruning",
    "wanda": "pruning",
    "gradient_aware": "pruning",
    "rtn": "quantization",
    "static_activations": "quantization",
    "dynamic_activations": "quantization",
    "drop_blocks": "structure",
    "repeat_blocks": "expansion",
    "calibrated_temperature": "decoding",
}
REPAIRS = {name: [] for name in FAMILIES} | {
    "gradient_aware": ["magnitude", "wanda"],
    "dynamic_activations": ["static_activations"],
    "calibrated_temperature": ["*"],
}
DAMAGE = {  # ΔNLL in nats at a level
    "magnitude": lambda s: 0.02 * s + 30 * s**4.2,
    "wanda": lambda s: 0.01 * s + 11 * s**4.5,
    "gradient_aware": lambda s: 0.01 * s + 8 * s**4.6,
    "rtn": lambda b: 55 * 4.4**-b * 3,
    "static_activations": lambda b: 900 * 4.3**-b,
    "dynamic_activations": lambda b: 160 * 4.3**-b,
    "drop_blocks": lambda k: 0.21 * k**1.3,
    "repeat_blocks": lambda k: 0.07 * k**1.2,
}
LEVELS = {
    "magnitude": (0.1, 0.2, 0.3, 0.4, 0.5),
    "wanda": (0.1, 0.3, 0.4, 0.5, 0.6),
    "gradient_aware": (0.1, 0.3, 0.4, 0.5, 0.6),
    "rtn": (8, 6, 5, 4, 3, 2),
    "static_activations": (8, 7, 6, 5, 4),
    "dynamic_activations": (8, 7, 6, 5, 4),
    "drop_blocks": (1, 2, 4, 6),
    "repeat_blocks": (1, 2, 4, 8),
}


def grid() -> dict:
    """The study as builtin values, as the Snakefile hands it over."""
    recipes: dict[str, list] = {"identity": [{"method": "identity", "settings": {}}]}
    sweeps: dict[str, list] = {"identity": []}
    for method, levels in LEVELS.items():
        setting = AXES[method]["setting"]
        for level in levels:
            slug = f"{method}_{setting}~{level}"
            recipes[slug] = [{"method": method, "settings": {setting: level}}]
            sweeps[slug] = [[f"{method}_{setting}~*", method, level]]
            if method == "magnitude":
                more = f"{slug}+calibrated_temperature"
                recipes[more] = [*recipes[slug], {"method": "calibrated_temperature", "settings": {}}]
                names = ["magnitude_sparsity~*+calibrated_temperature", "magnitude+calibrated_temperature"]
                sweeps[more] = [[*names, level]]
    slug = "magnitude_sparsity~0.5+rtn_bits~4"
    recipes[slug] = [{"method": "magnitude", "settings": {"sparsity": 0.5}}, {"method": "rtn", "settings": {"bits": 4}}]
    sweeps[slug] = [
        ["magnitude_sparsity~*+rtn_bits~4", "magnitude+rtn_bits~4", 0.5],
        ["magnitude_sparsity~0.5+rtn_bits~*", "rtn+magnitude_sparsity~0.5", 4],
    ]
    return {
        "variants": {
            slug: {
                "family": FAMILIES[recipe[0]["method"]],
                "sweeps": sweeps[slug],
                "method": "+".join(step["method"] for step in recipe),
            }
            for slug, recipe in recipes.items()
        },
        "axes": AXES,
        "repairs": REPAIRS,
        "leaves_reference": ["identity", "calibrated_temperature"],
        "recipes": recipes,
        "calibrations": {"default": {"text": "wikipedia", "windows": 16, "window": 128, "joining": "article"}},
        "evaluation_text": "wikipedia",
    }


def write_records(folder: Path, study: dict) -> list[str]:
    """Write fidelity and text records of every variant; return their paths."""
    paths = []
    for slug, recipe in study["recipes"].items():
        home = folder / "models" / MODEL / "variants" / slug
        paths.append(_write_fidelity(home, slug, _damage(recipe)))
        if "+" not in slug:
            paths.extend(
                _write_text(home, slug, decoder, _damage(recipe))
                for decoder in ("greedy", "temperature_temperature~0.7")
            )
    return paths


def write_tables(folder: Path) -> dict[str, str]:
    """Write every table of the made-up study; return their paths by name, and the grid under "study"."""
    study = grid()
    names = ("metrics", "thresholds", "mitigations", "floors", "cuts", "statements")
    paths = {name: str(folder / "tables" / f"{name}.tsv") for name in names}
    paths["windows"] = str(folder / "tables" / "windows.parquet")
    tables.collect(write_records(folder, study), study, paths["metrics"], paths["windows"])
    reference = folder / "models" / MODEL / "reference" / "evaluation" / "reference.json"
    files.write_json(reference, {"floors": {"floor_batch": 0.0, "floor_bf16": 3.1e-5}})
    tables.collect_floors({MODEL: str(reference)}, paths["floors"])
    thresholds.find(paths["metrics"], study, CRITERIA, paths["floors"], paths["thresholds"])
    mitigations.compare(paths["metrics"], paths["windows"], study, CRITERIA, paths["floors"], paths["mitigations"])
    cuts.collect([], paths["cuts"])
    statements.judge(paths["metrics"], paths["windows"], paths["cuts"], study, paths["statements"])
    return {**paths, "study": study}  # type: ignore[dict-item]


def _damage(recipe: list[dict]) -> float:
    total = sum(
        DAMAGE[step["method"]](next(iter(step["settings"].values()))) for step in recipe if step["method"] in DAMAGE
    )
    return total * (0.85 if recipe[-1]["method"] == "calibrated_temperature" else 1.0)


def _generator(*names: str) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32("/".join(names).encode()))


def _write_fidelity(home: Path, slug: str, damage: float) -> str:
    hardness = np.exp(0.35 * _generator("windows").standard_normal(BLOCKS))
    own = np.exp(0.1 * _generator(slug).standard_normal(BLOCKS)) if damage else np.ones(BLOCKS)
    counts = np.full(BLOCKS, float(TOKENS))
    base = (3.0 + 0.3 * _generator("nll").standard_normal(BLOCKS)) * counts
    kl = 1.1 * damage * hardness * own * counts
    delta = (damage * hardness * own - (0.02 if 0 < damage < 0.02 else 0.0)) * counts
    agree = np.exp(-0.8 * damage * hardness * own) * counts
    windows = {"kl": kl, "delta_nll": delta, "nll": base + delta, "top1_agreement": agree}
    index = statistics.index_matrix(MODEL, "evaluation", BLOCKS)
    found = {name: statistics.mean_interval(sums, counts, index) for name, sums in windows.items()}
    found["perplexity"] = statistics.exponential(found["nll"])
    found["perplexity_ratio"] = statistics.exponential(found["delta_nll"])
    metrics = [
        {"metric": name, **vars(estimate), "unit": "nats", "higher_is_better": name == "top1_agreement"}
        for name, estimate in found.items()
    ]
    path = home / "fidelity.json"
    files.write_json(path, _record(slug, "fidelity", metrics))
    files.write_arrays(
        home / "fidelity.npz",
        **{f"windows.{name}": sums for name, sums in windows.items()},
        **{"windows.count": counts},
    )
    return str(path)


def _write_text(home: Path, slug: str, decoder: str, damage: float) -> str:
    noise = 0.03 * _generator(slug, decoder).standard_normal()
    weight = float(np.clip(np.exp(-2.2 * damage**0.4) + noise * (damage > 0), 0.02, 1.0))
    values = {
        "weight_effect": weight,
        "decoder_effect": 1.0 if decoder == "greedy" else 0.33 + noise,
        "seed_floor": 1.0 if decoder == "greedy" else 0.31,
    }
    metrics = []
    for effect, value in values.items():
        for metric, scale, unit in (("token_agreement", 1.0, "share"), ("first_divergence", 64.0, "tokens")):
            metrics.append(
                {
                    "metric": f"{effect}.{metric}",
                    "value": value * scale,
                    "se": 0.04 * scale,
                    "low": max(value - 0.08, 0) * scale,
                    "high": min(value + 0.08, 1) * scale,
                    "n": 8,
                    "blocks": 8,
                    "unit": unit,
                    "higher_is_better": True,
                }
            )
    path = home / "text" / f"{decoder}.json"
    files.write_json(path, _record(slug, f"text.{decoder}", metrics))
    return str(path)


def _record(slug: str, probe: str, metrics: list[dict]) -> dict:
    return {"model": MODEL, "variant": slug, "probe": probe, "version": 1, "protocol": PROTOCOL, "metrics": metrics}
