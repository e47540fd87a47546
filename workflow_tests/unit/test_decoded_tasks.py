"""Tasks that decoders answer: lm-eval's prompts and scores, the study's decoders, paired by item and noise."""

import json

import numpy as np
import pytest
from example_articles import ARTICLES

import tiny
from hemorrhage import records
from hemorrhage.corpus.prompts import Prompt
from hemorrhage.corpus.texts import Article
from hemorrhage.decoding import generation, task_scores
from hemorrhage.tasks import arithmetic, code, decoded, decoded_records, decoded_scoring, facts, sandbox
from hemorrhage.tasks.harness import loaded

DECODERS = {
    "greedy": {"name": "greedy", "settings": {}},
    "top_k": {"name": "top_k", "settings": {"k": 20}},
    "beam": {"name": "beam", "settings": {}},
}
YEARS = [
    Article(
        f"place {i}",
        " ".join(
            f"In the early spring the number {i}{j} village of the valley was built by settlers in {1800 + j} and it "
            f"burned down during the war that came over the whole of that country in {1900 + 2 * j} or a little later "
            "than the people of the valley remember."
            for j in range(6)
        ),
    )
    for i in range(4)
]
LOCAL = """task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: "{file}"}}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{answer}}}}"
generation_kwargs: {{until: ["{until}"], max_gen_toks: 6, do_sample: false}}
metric_list: [{{metric: {metric}}}]
{more}
"""


def asked(**values):
    return {
        "names": ["arithmetic"],
        "items": 5,
        "few_shot": None,
        "new_tokens": None,
        "run_code": False,
        "seed": 1,
        "seeds": [1, 2],
        "text": None,
        **values,
    }


def local(folder, rows, name="own", until="zzz", metric="exact_match", more=""):
    (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    path = folder / f"{name}.yaml"
    path.write_text(LOCAL.format(name=name, file=folder / f"{name}.jsonl", until=until, metric=metric, more=more))
    return f"local:{path}"


def answers(tasks, model=None, decoders=DECODERS, others=None):
    return decoded_records.ask(model or tiny.build(), tiny.tokenizer(), decoders, tasks, [], others or {})


def said(model, prompt, decoder, id, seed=None, limit=6):
    tokenizer = tiny.tokenizer()
    ids = tuple(tokenizer(prompt)["input_ids"])
    settings = DECODERS[decoder]["settings"]
    made = generation.continue_prompts(
        model, [Prompt(id, ids, prompt)], decoder, settings, seeds=[] if seed is None else [seed], limit=limit
    )
    return tokenizer.decode(made[0].tokens, skip_special_tokens=True)


def test_items_of_the_built_in_tasks():
    items = arithmetic.build([], 20, 1)
    assert items == arithmetic.build([], 20, 1) != arithmetic.build([], 20, 2)
    assert len({item["question"] for item in items}) == 20 + arithmetic.EXAMPLES
    for item in items:
        a, b = item["question"].split(" + ")
        assert int(item["answer"]) == int(a) + int(b)
    with pytest.raises(ValueError, match="there are"):
        arithmetic.build([], 10**6, 1)
    found = facts.build(YEARS, 8, 1)
    assert len(found) == 8 + facts.EXAMPLES
    for item in found:
        assert item["passage"].count(item["answer"]) == 1
        assert f"{item['cue']} {item['answer']}" in item["passage"]
    with pytest.raises(ValueError, match="items of facts"):
        facts.build(ARTICLES, 1000, 1)


def test_every_decoder_answers_and_the_score_is_that_of_its_own_text(tmp_path):
    """The answers of an item are what ``continue_prompts`` says with its place and seed; exact match by hand."""
    model = tiny.build()
    prompts = [f"the old king number {i} said that" for i in range(6)]
    truth = {}
    for decoder, seeds in (("greedy", [None]), ("top_k", [1, 2]), ("beam", [None])):
        truth[decoder] = [[said(model, prompt, decoder, i, seed) for seed in seeds] for i, prompt in enumerate(prompts)]
    # Half of the answers are right for greedy search, some for another decoder's seed.
    targets = [truth["greedy"][i][0] if i % 2 else truth["top_k"][i][1] for i in range(6)]
    name = local(tmp_path, [{"question": p, "answer": t} for p, t in zip(prompts, targets, strict=True)])
    found = answers(asked(names=[name], items=6), model)
    for decoder, texts in truth.items():
        scores = found[decoder]["own"]
        expected = [[float(text == targets[i]) for text in texts[i]] for i in scores.ids]
        np.testing.assert_array_equal(scores.score, expected)
    assert 0 < found["greedy"]["own"].score.mean() < 1


def test_scores_are_lm_eval_s_own(tmp_path):
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    model, tokenizer = tiny.build(), tiny.tokenizer()
    texts = [said(model, f"number {i} is", "greedy", i) for i in range(5)]
    rows = [{"question": f"number {i} is", "answer": text if i % 2 else "no"} for i, text in enumerate(texts)]
    name = local(tmp_path, rows)
    asking = decoded.Asking(items=5, seed=1, seeds=[1, 2])
    with loaded([name], {}) as tasks:
        own = decoded.ask(model, tokenizer, "own", tasks["own"], DECODERS["greedy"], asking, {})
        speaker = decoded.speaker_of(model, tokenizer, DECODERS["greedy"], asking, {})
        theirs = simple_evaluate(
            speaker, tasks=tasks["own"], bootstrap_iters=0, task_manager=TaskManager(include_defaults=False)
        )
    assert own.score.mean() == pytest.approx(theirs["results"]["own"]["exact_match,none"])
    assert own.score.sum() == 2


def test_an_answer_ends_at_the_word_that_ends_it_and_costs_no_more(tmp_path):
    model = tiny.build()
    prompts = [f"the old king number {i} said that" for i in range(4)]
    whole = [said(model, prompt, "greedy", i, limit=12) for i, prompt in enumerate(prompts)]
    until = whole[0][4:6]
    name = local(tmp_path, [{"question": p, "answer": w.split(until)[0]} for p, w in zip(prompts, whole, strict=True)])
    path = tmp_path / "own.yaml"
    path.write_text(path.read_text().replace("max_gen_toks: 6", "max_gen_toks: 12").replace('"zzz"', json.dumps(until)))
    forwards = []
    model.register_forward_hook(lambda *_: forwards.append(1))
    found = answers(asked(names=[name], items=2), model, {"greedy": DECODERS["greedy"]})
    assert found["greedy"]["own"].score.all()
    assert len(forwards) <= 12
    assert decoded.cut("abc\nd", ["\n", "b"]) == "a"


def test_a_row_s_end_leaves_the_other_rows_as_they_are():
    model, rows = tiny.build(), tiny.tokens(3, 6, seed=4).tolist()
    prompts = [Prompt(i, tuple(row), "") for i, row in enumerate(rows)]
    whole = [entry.tokens for entry in generation.continue_prompts(model, prompts, "greedy", {}, limit=10)]
    stop = whole[1][3]
    ended = [
        entry.tokens
        for entry in generation.continue_prompts(
            model, prompts, "greedy", {}, limit=10, ended=lambda tokens: tokens[-1] == stop
        )
    ]
    expected = [row[: row.index(stop) + 1] if stop in row else row for row in whole]
    assert ended == expected and ended[1] != whole[1]


def test_records_pair_variant_and_reference_item_by_item(tmp_path):
    tasks = asked(names=["arithmetic"], items=6)
    paths = {}
    for variant, model in (("identity", tiny.build()), ("other", tiny.build(seed=1))):
        paths[variant] = {slug: str(tmp_path / variant / f"{slug}.json") for slug in DECODERS}
        before = (
            {slug: records.read_arrays(str(tmp_path / "identity" / f"{slug}.npz")) for slug in DECODERS}
            if (variant == "other")
            else {}
        )
        found = answers(tasks, model)
        decoded_records.write(found, before, tasks, {"model": "tiny", "variant": variant}, paths[variant])
    record = records.read(paths["other"]["top_k"])
    assert record.probe == "decoded_tasks.top_k"
    names = [entry.metric for entry in record.measurement.metrics]
    assert names == [
        "score.arithmetic",
        "decoder_effect.delta_score.arithmetic",
        "decoder_effect.flips.arithmetic",
        "weight_effect.delta_score.arithmetic",
        "weight_effect.flips.arithmetic",
    ]
    assert record["score.arithmetic"].n == 12 and record["score.arithmetic"].blocks == 6
    own = records.read(paths["identity"]["greedy"])
    assert own["weight_effect.flips.arithmetic"].value == 0
    assert not any(entry.metric.startswith("decoder_effect") for entry in own.measurement.metrics)
    first = (tmp_path / "other" / "top_k.json").read_bytes()
    decoded_records.write(
        answers(tasks, tiny.build(seed=1)), before, tasks, {"model": "tiny", "variant": "other"}, paths["other"]
    )
    assert (tmp_path / "other" / "top_k.json").read_bytes() == first


def scores_of(values, digests=None):
    values = np.array(values, dtype=float)
    return decoded.Scores(np.arange(len(values)), np.arange(len(values)) if digests is None else digests, values)


def test_metrics_are_means_over_items_of_means_over_seeds():
    own, before = scores_of([[1, 0], [1, 1], [0, 0], [1, 1]]), scores_of([[1, 1], [0, 1], [0, 0], [1, 1]])
    greedy = scores_of([[1], [0], [0], [1]])
    found = {entry.metric: entry for entry in decoded_scoring.metrics("t", own, before, greedy, "m")}
    assert found["score.t"].value == pytest.approx(5 / 8)
    assert found["decoder_effect.delta_score.t"].value == pytest.approx(5 / 8 - 2 / 4)
    assert found["decoder_effect.flips.t"].value == pytest.approx((0.5 + 1) / 4)
    assert found["weight_effect.delta_score.t"].value == pytest.approx(0)
    assert found["weight_effect.flips.t"].value == pytest.approx((0.5 + 0.5) / 4)
    assert found["score.t"].low < 5 / 8 < found["score.t"].high
    with pytest.raises(ValueError, match="other items of t"):
        decoded_scoring.metrics("t", own, scores_of([[1, 1]] * 4, np.arange(4) + 1), None, "m")


def test_scores_of_none_or_all_are_not_certain_and_the_reference_against_itself_is():
    own, alike = scores_of([[0, 0]] * 8), scores_of([[0, 0]] * 8)
    for before, ends in ((own, (0, 0)), (alike, (-0.369, 0.369))):
        found = {entry.metric: entry for entry in decoded_scoring.metrics("t", own, before, alike, "m")}
        assert (found["score.t"].low, found["score.t"].high) == pytest.approx((0, 0.369), abs=1e-3)
        change, flips = found["weight_effect.delta_score.t"], found["weight_effect.flips.t"]
        assert (change.low, change.high) == pytest.approx(ends, abs=1e-3)
        assert (flips.low, flips.high) == pytest.approx((0, ends[1]), abs=1e-3)
        assert found["decoder_effect.flips.t"].high == pytest.approx(0.369, abs=1e-3)


def test_the_range_over_decoders_is_of_the_worst():
    import pandas as pd

    rows = pd.DataFrame(
        {
            "model": "m",
            "variant": "identity",
            "decoder": ["greedy", "beam", "greedy", "beam", "greedy"],
            "dataset": ["a", "a", "b", "b", "c"],
            "value": [0.4, 0.5, 0.0, 0.2, 0.3],
        }
    )
    found = task_scores.ranges(rows).loc[[("m", "identity")]]
    assert float(found["a"].iloc[0]) == pytest.approx(0.25)
    assert np.isnan(found["b"].iloc[0])
    assert "c" not in found


def test_kinds_that_no_decoder_answers_are_refused(tmp_path):
    name = local(tmp_path, [{"question": "a", "answer": "b"}] * 3)
    path = tmp_path / "own.yaml"
    path.write_text(path.read_text().replace("generate_until", "loglikelihood").replace("exact_match", "acc"))
    with pytest.raises(ValueError, match="own has the output type loglikelihood"):
        answers(asked(names=[name]))


def test_too_long_prompts_lose_their_beginning(tmp_path):
    model = tiny.build()
    name = local(tmp_path, [{"question": f"{i} " + "the old king " * 300, "answer": "x"} for i in range(2)])
    assert answers(asked(names=[name], items=2), model, {"greedy": DECODERS["greedy"]})["greedy"][
        "own"
    ].score.shape == (2, 1)


PROBLEMS = [
    {"question": "add", "answer": "", "test_list": ["assert add(2, 3) == 5", "assert add(0, 0) == 0"]},
    {"question": "double", "answer": "", "test_list": ["assert double(4) == 8"]},
]


def test_programs_are_refused_unless_allowed(tmp_path):
    name = local(tmp_path, PROBLEMS, metric="bypass")
    with pytest.raises(ValueError, match="own is answered by programs"):
        answers(asked(names=[name], items=2))


def test_programs_are_scored_by_their_tests_in_the_sandbox(tmp_path, monkeypatch):
    if (reason := sandbox.why_not()) is not None:
        pytest.skip(reason)
    solutions = {"add": "def add(a, b):\n    return a + b", "double": "def double(a):\n    return a + 1"}
    name = local(tmp_path, PROBLEMS, metric="bypass", more="unsafe_code: true")
    speakers = decoded.speaker_of

    def speaking(*arguments):
        speaker = speakers(*arguments)
        speaker.generate_until = lambda requests: [solutions[request.doc["question"]] for request in requests]
        return speaker

    monkeypatch.setattr(decoded, "speaker_of", speaking)
    found = answers(asked(names=[name], items=2, run_code=True), decoders={"greedy": DECODERS["greedy"]})
    assert found["greedy"]["own"].score.tolist() == [[1.0], [0.0]]


def test_a_program_that_was_not_run_is_no_wrong_program(tmp_path, monkeypatch):
    name = local(tmp_path, PROBLEMS, metric="bypass", more="unsafe_code: true")
    monkeypatch.setattr(sandbox, "require", lambda: None)
    monkeypatch.setattr(sandbox, "run", lambda program: sandbox.REFUSED)
    with pytest.raises(OSError, match="sandbox could not be made any more"):
        answers(asked(names=[name], items=2, run_code=True), decoders={"greedy": DECODERS["greedy"]})


def test_mbpp_is_asked_as_it_is_published_and_never_scored_by_lm_eval():
    import datasets

    row = {"text": "Write a function to add.", "code": "def add(a, b):\n  return a + b", "task_id": 2}
    rows = [{**row, "test_list": ["assert add(1, 2) == 3", "assert add(0, 0) == 0", "assert add(1, 1) == 2"]}] * 3
    splits = {split: datasets.Dataset.from_list(rows) for split in ("test", "examples")}
    with loaded(["mbpp"], {"mbpp": code.definition(lambda **_: splits)}) as tasks:
        task = tasks["mbpp"][0]
        assert code.is_code(task)
        task.build_all_requests(samples=[0], rank=0, world_size=1)
        prompt, options = task.instances[0].args
    expected = (
        "You are an expert Python programmer, and here is your task: Write a function to add. Your code should pass "
        "these tests:\n\nassert add(1, 2) == 3\nassert add(0, 0) == 0\nassert add(1, 1) == 2\n[BEGIN]\n"
    )
    assert prompt.endswith(expected) and prompt.count("[BEGIN]\n") == 4
    assert prompt.startswith(f"{expected}def add(a, b):\n  return a + b\n[DONE]")
    assert options["until"] == ["[DONE]"]
    program = code.program(rows[0], "def add(a, b): return a + b")
    assert program.startswith("def add") and program.count("assert") == 3
    with pytest.raises(ValueError, match="test_list"):
        code.program({"test_list": []}, "")
