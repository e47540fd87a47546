"""The study answers what the rules ask, and refuses what is wrong before anything runs."""

import copy

import pytest

from hemorrhage.planning import figure_plan
from hemorrhage.planning.study import Study

CONFIG = {
    "seed": 1,
    "dtype": "float32",
    "trust": {"pickles": ["b"], "remote_code": []},
    "models": {"a": {"source": "hub:owner/a@main"}, "b": {"source": "hub:owner/b@main"}},
    "texts": {"wiki": {"source": "hub:datasets/owner/t@main/x.jsonl", "format": "jsonl"}},
    "protocol": {"window": 64},
    "protocols": [],
    "tokens": {
        "evaluation": {"text": "wiki", "windows": 8},
        "fit": {"text": "wiki", "windows": 4},
        "calibration": {"default": {"text": "wiki", "windows": 4, "window": 32}},
    },
    "variants": [{"wanda": {"sparsity": [0.2, 0.5]}}, {"gradient_aware": {"sparsity": 0.5}}],
    "probes": {"fidelity": {"variants": ["*"], "settings": {}}},
    "decoding": {
        "decoders": [{"temperature": {"temperature": [0.5, 1]}}],
        "variants": ["wanda_*"],
        "prompts": {"count": 2, "tokens": 4, "path": None},
        "new_tokens": 4,
        "seeds": [1, 2],
    },
    "thresholds": {"criteria": {"kl": {"metric": "kl", "at": 0.1}}, "severity": []},
}


def changed(value, *path):
    config = copy.deepcopy(CONFIG)
    place = config
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return config


def test_token_sets_name_the_sets_that_choose_before_them():
    specs = Study(CONFIG).tokens.specs("calibration.default")
    assert list(specs) == ["evaluation", "fit", "calibration.default"]
    assert [spec["protocol"]["window"] for spec in specs.values()] == [64, 64, 32]
    assert list(Study(CONFIG).tokens.specs("evaluation")) == ["evaluation"]


def test_the_reference_is_measured_by_every_probe_and_decoder():
    config = changed(["wanda_sparsity~0.5"], "probes", "fidelity", "variants")
    assert Study(config).chosen("fidelity") == ["identity", "wanda_sparsity~0.5"]
    assert Study(CONFIG).chosen("decoding") == ["identity", "wanda_sparsity~0.2", "wanda_sparsity~0.5"]


def test_without_decoders_no_text_is_generated():
    assert Study(changed([], "decoding", "decoders")).chosen("decoding") == []


def test_greedy_comes_first_and_once():
    config = changed(["greedy", {"temperature": {"temperature": 0.5}}], "decoding", "decoders")
    assert [step.slug() for step in Study(config).decoding.decoders] == ["greedy", "temperature_temperature~0.5"]


def test_gradients_are_asked_for_by_the_variants_that_need_them():
    study = Study(CONFIG)
    assert study.gradients_of(study.by_slug["gradient_aware_sparsity~0.5"]) == ["calibration.default.l2"]
    assert study.gradients_of(study.by_slug["wanda_sparsity~0.5"]) == []


def test_trust_is_given_by_name():
    assert Study(CONFIG).trusted("b") == ["pickles"]
    assert Study(CONFIG).trusted("a") == []


def test_figures_follow_what_is_in_the_study():
    figures = figure_plan.figures(Study(CONFIG))
    assert {"overview", "family_pruning", "mitigations", "decoding"} <= figures.keys()
    assert "decoding" not in figure_plan.figures(Study(changed([], "decoding", "decoders")))


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (changed("prose", "tokens", "fit", "text"), "unknown text in tokens.fit 'prose'.*Known: wiki"),
        (changed({"source": "hub"}, "models", "a"), "models.a.source"),
        (changed(["wanda_sparsity~0.3"], "decoding", "variants"), "wanda_sparsity~0.3"),
        (changed("no.txt", "decoding", "prompts", "path"), "decoding.prompts.path: 'no.txt'"),
        (changed({"kl": {"metric": "kl", "relative": 2}}, "thresholds", "criteria"), "nothing is relative to it"),
        (changed({}, "tokens", "calibration"), "calibration set of wanda"),
        (changed({"window": 1}, "protocol"), "window: 1"),
    ],
)
def test_wrong_studies_are_refused_in_one_sentence(config, words):
    with pytest.raises(ValueError, match=words) as refusal:
        Study(config)
    assert "\n" not in str(refusal.value)
