"""Perplexity and KL of the workflow equal a plain transformers loop over the same text, to 1e-5 relative.

Non-overlapping windows of 512 tokens of the joined text, no BOS, positions 1 to 511 scored. The loop loads what
`snakemake export` keeps and knows nothing of this package.
"""

import copy
import io
import json
import math

import pandas as pd
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from workflow.project import CONFIG, Project

import tiny

pytestmark = pytest.mark.xdist_group("plain")
WINDOW, WINDOWS = 512, 6
LEVELS = {
    "magnitude": ("sparsity", [0.2, 0.5, 0.8]),
    "rtn": ("bits", [8, 4, 3]),
    "repeat_blocks": ("blocks", [1, 2, 3]),
    "drop_blocks": ("blocks", [1, 2, 3]),
}


def slugs():
    return [f"{method}_{axis}~{level}" for method, (axis, levels) in LEVELS.items() for level in levels]


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A project whose variants are measured on a .txt file and exported."""
    project = Project(tmp_path_factory.mktemp("plain"))
    tiny.write_folder(project.folder / "model", blocks=5)
    config = copy.deepcopy(CONFIG)
    config["texts"] = {"prose": {"source": "path:text.txt", "format": "plain"}}
    config["protocol"] = {"window": WINDOW, "joining": "contiguous"}
    small = {"text": "prose", "windows": 2, "window": 64}
    config["tokens"] = {
        "evaluation": {"text": "prose", "windows": WINDOWS},
        "calibration": {"default": small},
    }
    config["variants"] = [{method: {axis: levels}} for method, (axis, levels) in LEVELS.items()]
    config["decoding"] = {}
    project.configure(config)
    articles = (project.folder / "text.jsonl").read_text().splitlines()
    (project.folder / "text.txt").write_text("\n\n".join(json.loads(line)["text"] for line in articles))
    project.run("export", "tables", "--config", "variant=" + ",".join(slugs()))
    return project


def plain_loop(reference_folder, variant_folder, text):
    """(perplexity, mean KL to the reference) the plain way, in float64 from the logits on."""
    tokenizer = AutoTokenizer.from_pretrained(reference_folder)
    ids = torch.tensor(tokenizer(text, add_special_tokens=False).input_ids)
    reference = AutoModelForCausalLM.from_pretrained(reference_folder, dtype=torch.float32).eval()
    variant = AutoModelForCausalLM.from_pretrained(variant_folder, dtype=torch.float32).eval()
    nll, kl, scored = 0.0, 0.0, 0
    for start in range(0, WINDOWS * WINDOW, WINDOW):
        window = ids[None, start : start + WINDOW]
        with torch.no_grad():
            p = reference(window).logits[0, :-1].double().log_softmax(-1)
            q = variant(window).logits[0, :-1].double().log_softmax(-1)
        nll -= float(q.gather(1, window[0, 1:, None]).sum())
        kl += float((p.exp() * (p - q)).sum())
        scored += WINDOW - 1
    return math.exp(nll / scored), kl / scored


@pytest.mark.parametrize("slug", slugs())
def test_equal_to_a_plain_loop(measured, slug):
    metrics = pd.read_csv(io.BytesIO(measured.read("tables/metrics.tsv")), sep="\t").query("variant == @slug")
    found = metrics.drop_duplicates("metric").set_index("metric")["value"]
    text = (measured.folder / "text.txt").read_text()
    base = measured.folder / "results" / "models" / "tiny" / "base"
    perplexity, kl = plain_loop(base, measured.folder / "results" / "exports" / "tiny" / slug, text)
    assert found["perplexity"] == pytest.approx(perplexity, rel=1e-5)
    assert found["kl"] == pytest.approx(kl, rel=1e-5, abs=1e-9)


def test_export_has_a_card_of_its_damage(measured):
    card = (measured.folder / "results" / "exports" / "tiny" / "rtn_bits~3" / "README.md").read_text()
    assert "Damage: **" in card and "| kl |" in card and "`rtn` bits 3" in card
