"""The probe ``tasks`` through lm-eval: built-in, local and real tasks on a tiny model, the same bytes every time."""

import dataclasses
import json
import logging
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from example_articles import ARTICLES

import tiny
from hemorrhage import plugins, records
from hemorrhage.architecture import attachments
from hemorrhage.probes import tasks
from hemorrhage.probing import Context
from hemorrhage.tasks import harness

DATA = Path(os.environ.get("HEMORRHAGE_TEST_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
MULTIPLE_CHOICE = """task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: "{file}"}}}}
test_split: test
output_type: multiple_choice
metric_list: [{{metric: acc}}, {{metric: acc_norm}}]
"""
ARC = 'doc_to_text: "Question: {{question}}\\nAnswer:"\ndoc_to_choice: choices\ndoc_to_target: gold\n'
BLIMP = 'doc_to_text: ""\ndoc_to_choice: "{{[sentence_good, sentence_bad]}}"\ndoc_to_target: 0\n'
LAMBADA = """task: lambada_local
dataset_path: json
dataset_kwargs: {{data_files: {{test: "{file}"}}}}
test_split: test
output_type: loglikelihood
doc_to_text: "{{{{context}}}}"
doc_to_target: "{{{{' ' + continuation}}}}"
metric_list: [{{metric: acc}}]
"""


@pytest.fixture
def context(tmp_path):
    tiny.tokenizer().save_pretrained(tmp_path / "base")
    text = tmp_path / "text.jsonl"
    text.write_text("".join(json.dumps({"title": a.title, "text": a.text}) + "\n" for a in ARTICLES))
    source = {"source": f"path:{text}", "format": "jsonl"}
    return Context(None, None, None, 4, model="tiny", model_dir=tmp_path, text=source)


def measure(model, context, **values):
    return tasks.measure(model, context, plugins.get("probes", "tasks").settings(values))


def value(measurement, metric):
    return next(entry.value for entry in measurement.metrics if entry.metric == metric)


def questions(folder, name="quiz", count=30):
    """A local task in lm-eval's form, with its data."""
    rows = [
        {"question": f"what is {i}", "choices": [f"one {i}", "two", "three of them"], "gold": i % 3}
        for i in range(count)
    ]
    (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / f"{name}.yaml").write_text(MULTIPLE_CHOICE.format(name=name, file=folder / f"{name}.jsonl") + ARC)
    return folder / f"{name}.yaml"


def test_the_built_in_tasks_end_to_end_and_byte_equal(context, tmp_path):
    reference, variant = tiny.build(), tiny.build(seed=1)
    own = measure(reference, context, items=5)
    against = dataclasses.replace(context, baseline=own.arrays)
    for turn in ("first", "second"):
        found = measure(variant, against, items=5)
        records.write(
            tmp_path / turn / "tasks.json",
            found,
            model="tiny",
            variant="other",
            probe="tasks",
            version=tasks.VERSION,
            protocol={},
        )
    for suffix in ("json", "npz"):
        first, second = (tmp_path / turn / f"tasks.{suffix}" for turn in ("first", "second"))
        assert first.read_bytes() == second.read_bytes()
    for task in ("last_word", "continuation", "agreement"):
        assert value(own, f"flips.{task}") == 0
        assert value(found, f"delta_margin.{task}") != 0
        assert len(found.arrays[f"{task}.choice"]) == 5
        assert value(found, f"margin.{task}") == pytest.approx(
            value(own, f"margin.{task}") + value(found, f"delta_margin.{task}")
        )
    assert records.read_arrays(tmp_path / "first" / "tasks.npz").keys() == own.arrays.keys()
    assert records.read(tmp_path / "first" / "tasks.json").protocol["items"] == 5


def test_log_probabilities_are_those_of_the_model(context):
    """The margin of a pair of sentences, computed without lm-eval."""
    from hemorrhage.tasks import agreement

    model, tokenizer = tiny.build(), tiny.tokenizer()
    margins = []
    for item in agreement.build([], 4, 1):
        scores = []
        for sentence in item["choices"]:
            ids = torch.tensor([[tokenizer.bos_token_id, *tokenizer(sentence)["input_ids"]]])
            with torch.no_grad():
                logs = model(ids).logits[0, :-1].log_softmax(-1)
            scores.append(float(logs.gather(1, ids[0, 1:, None]).sum()))
        margins.append(scores[item["gold"]] - scores[1 - item["gold"]])
    found = measure(model, context, tasks=["agreement"], items=4, batch=3)
    np.testing.assert_allclose(found.arrays["agreement.margin"], margins, atol=1e-3)
    np.testing.assert_array_equal(found.arrays["agreement.correct"], np.array(margins) > 0)


def test_attachments_are_seen(context):
    plain = measure(tiny.build(), context, tasks=["agreement"], items=4)
    for spec in (
        {"kind": "logit_scale", "factor": 0.5},
        {
            "kind": "activation_quantizer",
            "target": "model.layers.0.mlp.down_proj.weight",
            "bits": 2,
            "grid": "per_token",
            "scale": None,
        },
    ):
        model = tiny.build()
        attachments.attach(model, spec)
        found = measure(model, dataclasses.replace(context, baseline=plain.arrays), tasks=["agreement"], items=4)
        assert value(found, "delta_margin.agreement") != 0, spec


def test_a_task_s_numbers_do_not_depend_on_the_other_tasks(context):
    alone = measure(tiny.build(), context, tasks=["agreement"], items=4)
    among = measure(tiny.build(), context, tasks=["continuation", "agreement"], items=4)
    for name, array in alone.arrays.items():
        np.testing.assert_array_equal(among.arrays[name], array)


def test_a_launcher_s_variables_are_put_aside_and_back(context, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert value(measure(tiny.build(), context, tasks=["agreement"], items=2), "flips") == 0
    assert os.environ["WORLD_SIZE"] == "4"
    assert os.environ["LOCAL_RANK"] == "1"


@pytest.mark.parametrize("of", [lambda file: file, lambda file: file.parent])
def test_local_tasks_by_file_and_by_folder(context, tmp_path, of):
    (tmp_path / "own").mkdir()
    name = f"local:{of(questions(tmp_path / 'own'))}"
    found = measure(tiny.build(), context, tasks=[name], items=10, seed=3)
    ids = found.arrays["quiz.ids"]
    assert len(set(ids)) == 10
    assert ids.max() >= 10  # a random subset, not the first ones
    assert list(ids) == sorted(ids)
    again = measure(tiny.build(seed=2), context, tasks=[name], items=10, seed=3)
    np.testing.assert_array_equal(again.arrays["quiz.digests"], found.arrays["quiz.digests"])
    other = measure(tiny.build(), context, tasks=[name], items=10, seed=4)
    assert list(other.arrays["quiz.ids"]) != list(ids)
    with pytest.raises(ValueError, match="answered other items of quiz"):
        measure(tiny.build(), dataclasses.replace(context, baseline=other.arrays), tasks=[name], items=10, seed=3)


def test_accuracies_are_lm_eval_s_own(context, tmp_path):
    check_against_lm_eval(context, questions(tmp_path), items=30)


def check_against_lm_eval(context, file, items):
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    model, tokenizer = tiny.build(), tiny.tokenizer()
    found = measure(model, context, tasks=[f"local:{file}"], items=items)
    task = next(name.removesuffix(".ids") for name in found.arrays if name.endswith(".ids"))
    with harness.loaded([f"local:{file}"], {}) as tasks_:
        theirs = simple_evaluate(
            HFLM(pretrained=model, tokenizer=tokenizer, batch_size=8),
            tasks=tasks_[task],
            bootstrap_iters=0,
            task_manager=TaskManager(include_defaults=False),
            samples={tasks_[task][0].task_name: found.arrays[f"{task}.ids"].tolist()},
        )["results"]
    theirs = next(iter(theirs.values()))
    assert len(found.arrays[f"{task}.ids"]) == items
    assert value(found, f"accuracy.{task}") == pytest.approx(theirs["acc,none"])
    if "acc_norm,none" in theirs:
        assert value(found, f"normalised_accuracy.{task}") == pytest.approx(theirs["acc_norm,none"])
    return found


@pytest.mark.parametrize(
    ("file", "definition"),
    [
        ("arc_easy/arc_easy_test.jsonl", MULTIPLE_CHOICE + ARC.replace("{", "{{").replace("}", "}}")),
        ("blimp/anaphor_number_agreement.jsonl", MULTIPLE_CHOICE + BLIMP.replace("{", "{{").replace("}", "}}")),
        ("lambada_openai/lambada_openai_test.jsonl", LAMBADA),
    ],
)
def test_public_tasks_from_local_files(context, tmp_path, file, definition):
    if not (DATA / file).exists():
        pytest.skip(f"{DATA / file} is not there; HEMORRHAGE_TEST_DATA names a folder that holds it")
    path = tmp_path / "task.yaml"
    path.write_text(definition.format(name="local_task", file=DATA / file))
    check_against_lm_eval(context, path, items=6)


def test_other_kinds_of_tasks_are_refused(context, tmp_path):
    file = questions(tmp_path)
    text = file.read_text().replace("multiple_choice", "generate_until").replace("doc_to_choice: choices\n", "")
    file.write_text(text.replace("[{metric: acc}, {metric: acc_norm}]", "[{metric: exact_match}]"))
    with pytest.raises(ValueError, match="quiz has the output type generate_until"):
        measure(tiny.build(), context, tasks=[f"local:{file}"], items=5)


def test_data_that_cannot_be_loaded_are_one_sentence(context, tmp_path):
    file = questions(tmp_path)
    (tmp_path / "quiz.jsonl").unlink()
    with pytest.raises(OSError, match=r"'.*quiz.yaml' cannot be loaded"):
        measure(tiny.build(), context, tasks=[f"local:{file}"], items=5)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"tasks": []}, "not a list of different names"),
        ({"tasks": ["agreement", "agreement"]}, "not a list of different names"),
        ({"tasks": ["local:nowhere"]}, "does not exist"),
        ({"items": 1}, "items: 1"),
        ({"batch": 0}, "batch: 0"),
        ({"number": 1}, "unknown setting"),
    ],
)
def test_wrong_settings_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        plugins.get("probes", "tasks").settings(values)


def test_a_text_is_needed_only_by_the_tasks_that_are_built_from_one(context):
    without = dataclasses.replace(context, text=None)
    measure(tiny.build(), without, tasks=["agreement"], items=2)
    with pytest.raises(ValueError, match="built from a text"):
        measure(tiny.build(), without, tasks=["last_word"], items=2)


def test_lm_eval_s_warnings_stay_out_of_the_log(context, caplog):
    with caplog.at_level(logging.WARNING):
        measure(tiny.build(), context, tasks=["agreement"], items=2)
    assert not [record for record in caplog.records if record.name.startswith("lm_eval")]
