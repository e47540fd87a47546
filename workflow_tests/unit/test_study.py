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
        "tasks": {
            "names": [],
            "items": 4,
            "few_shot": None,
            "new_tokens": None,
            "decoders": ["*"],
            "text": None,
            "run_code": False,
        },
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


def test_calibration_sets_come_with_all_in_which_they_can_differ():
    sets = {
        "default": {"text": "wiki", "windows": 4},
        "row": {"text": "wiki", "windows": 8, "window": 32, "joining": "contiguous"},
    }
    assert Study(changed(sets, "tokens", "calibration")).tokens.calibrations() == {
        "default": {"text": "wiki", "windows": 4, "window": 64, "joining": "article"},
        "row": {"text": "wiki", "windows": 8, "window": 32, "joining": "contiguous"},
    }


def test_the_reference_is_measured_by_every_probe_and_decoder():
    config = changed(["wanda_sparsity~0.5"], "probes", "fidelity", "variants")
    assert Study(config).chosen("fidelity") == ["identity", "wanda_sparsity~0.5"]
    assert Study(CONFIG).chosen("decoding") == ["identity", "wanda_sparsity~0.2", "wanda_sparsity~0.5"]


def test_without_decoders_no_text_is_generated():
    assert Study(changed([], "decoding", "decoders")).chosen("decoding") == []


def test_greedy_comes_first_and_once():
    config = changed(["greedy", {"temperature": {"temperature": 0.5}}], "decoding", "decoders")
    assert [step.slug() for step in Study(config).decoding.decoders] == ["greedy", "temperature_temperature~0.5"]


def test_tasks_are_answered_by_greedy_and_the_chosen_decoders():
    assert Study(CONFIG).decoding.task_decoders() == []
    config = changed(["arithmetic", "facts"], "decoding", "tasks", "names")
    assert Study(config).decoding.task_decoders() == [
        "greedy",
        "temperature_temperature~0.5",
        "temperature_temperature~1",
    ]
    config["decoding"]["tasks"]["decoders"] = ["*~1"]
    study = Study(config)
    assert study.decoding.task_decoders() == ["greedy", "temperature_temperature~1"]
    assert study.decoded_tasks()["text"] == study.config["texts"]["wiki"]
    assert set(study.decoded_tasks()) == {
        "names",
        "items",
        "few_shot",
        "new_tokens",
        "run_code",
        "seed",
        "seeds",
        "text",
    }


def test_tasks_that_are_not_built_from_a_text_need_none():
    assert Study(changed(["arithmetic"], "decoding", "tasks", "names")).task_text() is None


def test_the_plan_knows_the_built_in_tasks_as_their_modules_do():
    from hemorrhage.planning import decoding_plan
    from hemorrhage.tasks import code, facts

    assert decoding_plan.TEXT_TASKS == (facts.NAME,)
    assert decoding_plan.CODE_TASKS == (code.NAME,)


def test_programs_are_refused_unless_the_config_allows_them(tmp_path):
    (tmp_path / "own.yaml").write_text("task: own\nunsafe_code: true\n")
    for name in ("mbpp", f"local:{tmp_path}", f"local:{tmp_path}/own.yaml"):
        config = changed([name], "decoding", "tasks", "names")
        with pytest.raises(ValueError, match="is answered by programs that the model writes"):
            Study(config)
        config["decoding"]["tasks"]["run_code"] = True
        assert Study(config).decoding.task_names == [name]


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
    healed = Study(changed(["finetune", *CONFIG["variants"]], "variants"))
    assert "family_recovery" not in figure_plan.figures(healed)  # a step without an axis has no curve to draw


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (changed(1, "tokens", "evaluation", "windows"), "tokens.evaluation.windows: 1 .* at least 2"),
        (changed("prose", "tokens", "fit", "text"), "unknown text in tokens.fit 'prose'.*Known: wiki"),
        (changed({"source": "hub"}, "models", "a"), "models.a.source"),
        (changed(["wanda_sparsity~0.3"], "decoding", "variants"), "wanda_sparsity~0.3"),
        (changed("no.txt", "decoding", "prompts", "path"), "decoding.prompts.path: 'no.txt'"),
        (changed(["local:no"], "decoding", "tasks", "names"), "decoding.tasks.names: 'local:no'"),
        (changed({"kl": {"metric": "kl", "relative": 2}}, "thresholds", "criteria"), "nothing is relative to it"),
        (changed({}, "tokens", "calibration"), "calibration set of wanda"),
        (changed({"window": 1}, "protocol"), "window: 1"),
    ],
)
def test_wrong_studies_are_refused_in_one_sentence(config, words):
    with pytest.raises(ValueError, match=words) as refusal:
        Study(config)
    assert "\n" not in str(refusal.value)


def test_the_grid_names_the_steps_that_leave_the_reference_as_it_is():
    config = {**CONFIG, "variants": [[{"wanda": {"sparsity": 0.5}}, "calibrated_temperature"], "finetune"]}
    assert Study(config).grid()["leaves_reference"] == ["calibrated_temperature", "identity"]
