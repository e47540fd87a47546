"""The three contrasts are kept apart, and first divergence, agreement and censoring are what they say."""

import json

import numpy as np
import pytest

from hemorrhage import records
from hemorrhage.decoding import trajectories

LIMIT = 10


def write(path, rows, limit=LIMIT):
    """Write continuations; ``rows`` is {prompt: {seed: tokens}}."""
    lines = [
        {
            "prompt": prompt,
            "prompt_hash": f"hash{prompt}",
            "prompt_text": "",
            "seed": seed,
            "tokens": tokens,
            "text": "",
            "prompt_tokens": [1, 2],
            "finished": len(tokens) < limit,
            "limit": limit,
        }
        for prompt, found in rows.items()
        for seed, tokens in found.items()
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def compare(tmp_path, a, b):
    return trajectories.compare(write(tmp_path / "a", {0: {None: a}}), write(tmp_path / "b", {0: {None: b}}))


@pytest.mark.parametrize(
    ("a", "b", "divergence", "agreement"),
    [
        (list(range(10)), list(range(10)), LIMIT, 1.0),
        ([1, 2, 3, 4], [1, 2, 9, 4], 2, 0.75),
        ([9, 2, 3, 4], [1, 2, 3, 4], 0, 0.75),
        ([1, 2], [1, 2, 3, 4], 2, 0.5),  # one text ended: it differs from its end on
        ([1, 2], [1, 2], LIMIT, 1.0),  # both ended alike: they never part
        ([], [], LIMIT, 1.0),
        ([], [1, 2], 0, 0.0),
    ],
)
def test_two_texts_part_at_their_first_difference(tmp_path, a, b, divergence, agreement):
    for found in (compare(tmp_path, a, b), compare(tmp_path, b, a)):
        assert found.first_divergence.tolist() == [[divergence]]
        assert found.token_agreement.tolist() == [[agreement]]
        assert found.identical.tolist() == [[a == b]]


def test_prefix_agreement_falls_at_the_first_divergence(tmp_path):
    found = compare(tmp_path, [1, 2, 3, 4], [1, 2, 9, 4])
    assert [bool(found.prefix_agreement(n)[0, 0]) for n in (1, 2, 3, 10)] == [True, True, False, False]


def test_texts_are_paired_by_prompt_and_seed_whatever_their_order(tmp_path):
    a = write(tmp_path / "a", {0: {1: [1, 1], 2: [2, 2]}, 1: {1: [3, 3], 2: [4, 4]}})
    b = write(tmp_path / "b", {1: {2: [4, 4], 1: [3, 9]}, 0: {2: [2, 2], 1: [1, 1]}})
    assert trajectories.compare(a, b).first_divergence.tolist() == [[LIMIT, LIMIT], [1, LIMIT]]


def test_every_seed_is_compared_with_the_one_greedy_text(tmp_path):
    sampled = write(tmp_path / "a", {0: {1: [1, 1], 2: [2, 2]}})
    greedy = write(tmp_path / "b", {0: {None: [1, 1]}})
    assert trajectories.compare(sampled, greedy).first_divergence.tolist() == [[LIMIT, 0]]


def test_the_floor_compares_every_two_seeds(tmp_path):
    path = write(tmp_path / "a", {0: {1: [1, 1], 2: [1, 2], 3: [1, 1]}})
    assert trajectories.compare_seeds(path).first_divergence.tolist() == [[1, LIMIT, 1]]
    assert trajectories.compare_seeds(write(tmp_path / "b", {0: {1: [1, 1]}})) is None


def test_measures_are_means_over_the_seeds_of_each_prompt(tmp_path):
    a = write(tmp_path / "a", {0: {1: [1, 1], 2: [2, 2]}, 1: {1: [3, 3], 2: [4, 4]}})
    b = write(tmp_path / "b", {0: {1: [1, 1], 2: [2, 9]}, 1: {1: [9, 3], 2: [4, 9]}})
    found = trajectories.per_prompt(trajectories.compare(a, b))
    assert found["first_divergence"].tolist() == [(LIMIT + 1) / 2, 0.5]
    assert found["token_agreement"].tolist() == [0.75, 0.5]
    assert found["identical_share"].tolist() == [0.5, 0.0]
    assert found["prefix_agreement_8"].tolist() == [0.5, 0.0]
    assert "prefix_agreement_32" not in found


@pytest.fixture
def study(tmp_path):
    """Texts of 8 prompts: the reference and a variant whose sampled text parts at place = prompt id."""
    rng = np.random.default_rng(0)
    draw = {p: {seed: rng.integers(4, 99, LIMIT).tolist() for seed in (1, 2)} for p in range(8)}
    moved = {
        p: {seed: [*tokens[:p], 0, *tokens[p + 1 :]] for seed, tokens in found.items()} for p, found in draw.items()
    }
    greedy = {p: {None: rng.integers(4, 99, LIMIT).tolist()} for p in range(8)}
    return {
        "reference": write(tmp_path / "reference", draw),
        "variant": write(tmp_path / "variant", moved),
        "reference_greedy": write(tmp_path / "greedy", greedy),
        "variant_greedy": write(tmp_path / "variant_greedy", {p: {None: draw[p][1]} for p in range(8)}),
    }


def measured(
    study,
    tmp_path,
    variant="rtn_bits~4",
    decoder="temperature",
    text="variant",
    greedy="variant_greedy",
    reference="reference",
):
    path = tmp_path / f"{variant}.{decoder}.json"
    trajectories.measure(
        study[text], study[greedy], study[reference], path, model="m", variant=variant, decoder=decoder
    )
    return path


def test_the_record_keeps_decoder_and_weight_effect_apart(study, tmp_path):
    record = records.read(measured(study, tmp_path))
    assert (record.probe, record.variant, record.model) == ("text.temperature", "rtn_bits~4", "m")
    weight = record["weight_effect.first_divergence"]
    assert (weight.value, weight.blocks, weight.n, weight.unit) == (3.5, 8, 16, "tokens")
    assert weight.low < 3.5 < weight.high
    assert record["weight_effect.token_agreement"].value == pytest.approx(0.9)
    assert record["weight_effect.identical_share"].value == 0
    assert record["weight_effect.prefix_agreement_8"].value == 0
    # Seed 1 is the greedy text with one place changed, seed 2 another text altogether.
    assert 0.45 < record["decoder_effect.token_agreement"].value < 0.5
    assert record["length"].value == LIMIT
    assert record["unfinished_share"].value == 1
    assert not any(metric.metric.startswith("seed_floor") for metric in record.measurement.metrics)


def test_the_curve_falls_from_all_to_those_that_never_part(study, tmp_path):
    arrays = records.read(measured(study, tmp_path)).measurement.arrays
    assert set(arrays) == {"weight_effect.prefix", "decoder_effect.prefix"}
    curve = arrays["weight_effect.prefix"]  # texts part at 0 to 7
    assert curve[:, 0].tolist() == [1, *[(7 - n) / 8 for n in range(8)], 0, 0]
    assert (curve[:, 1] <= curve[:, 0]).all() and (curve[:, 0] <= curve[:, 2]).all()


def test_what_texts_are_like_is_given_alone_and_against_both_others(study, tmp_path):
    record = records.read(measured(study, tmp_path))
    assert record["weight_effect.delta_length"].value == 0
    # Of each text alone: that two seeds share words is no repetition in either.
    alone = [
        len(set(line["tokens"])) / LIMIT
        for found in trajectories.read(study["variant"]).values()
        for line in found.values()
    ]
    assert record["distinct_1"].value == pytest.approx(np.mean(alone))
    assert 0 < record["self_bleu"].value < 0.5
    assert record["weight_effect.edit_distance"].value == pytest.approx(0.1)
    assert record["weight_effect.edit_distance"].higher_is_better is False


def test_texts_that_are_greedys_under_every_seed_are_as_diverse(tmp_path):
    rows = {p: [90, p, 90, 90, p + 1] for p in range(8)}
    texts = {
        "sampled": write(tmp_path / "a", {p: {1: row, 2: row} for p, row in rows.items()}),
        "greedy": write(tmp_path / "b", {p: {None: row} for p, row in rows.items()}),
    }
    record = records.read(measured(texts, tmp_path, text="sampled", greedy="greedy", reference="sampled"))
    assert record["distinct_1"].value == pytest.approx(0.6)
    for name in ("distinct_1", "distinct_2", "rep_2", "length"):
        assert record[f"decoder_effect.delta_{name}"].value == 0


def test_a_text_that_has_no_other_is_like_no_other(tmp_path):
    alone = {"one": write(tmp_path / "a", {0: {None: [1, 2, 3]}})}
    record = records.read(measured(alone, tmp_path, decoder="greedy", text="one", greedy="one", reference="one"))
    assert np.isnan([record[name].value for name in ("self_bleu", "weight_effect.delta_self_bleu")]).all()
    assert record["length"].value == 3


def test_the_reference_has_no_weight_effect_and_carries_the_floor(study, tmp_path):
    record = records.read(measured(study, tmp_path, "identity", text="reference", greedy="reference_greedy"))
    for name, value in [("first_divergence", LIMIT), ("token_agreement", 1), ("identical_share", 1)]:
        metric = record[f"weight_effect.{name}"]
        assert (metric.value, metric.se, metric.low, metric.high) == (value, 0, value, value)
    assert (record.measurement.arrays["weight_effect.prefix"] == 1).all()
    floor = record["seed_floor.first_divergence"]
    assert floor.value < 1
    assert (floor.n, floor.blocks) == (8, 8)


def test_a_variant_whose_texts_are_the_references_may_part_from_it_on_other_prompts(study, tmp_path):
    record = records.read(measured(study, tmp_path, text="reference", greedy="reference"))
    for effect in ("weight_effect", "decoder_effect"):
        for name in ("identical_share", "prefix_agreement_8"):
            metric = record[f"{effect}.{name}"]
            assert (metric.value, metric.high) == (1, 1) and metric.low == pytest.approx(0.631, abs=1e-3)
        curve = record.measurement.arrays[f"{effect}.prefix"]
        assert curve[0].tolist() == [1, 1, 1]  # nothing has been written yet
        assert curve[1:, 1] == pytest.approx(np.full(LIMIT, 0.631), abs=1e-3)
    assert record["unfinished_share"].low == pytest.approx(0.631, abs=1e-3)


def test_greedy_search_has_no_decoder_effect_and_no_floor(study, tmp_path):
    record = records.read(
        measured(study, tmp_path, "identity", "greedy", "reference_greedy", "reference_greedy", "reference_greedy")
    )
    names = {metric.metric.split(".")[0] for metric in record.measurement.metrics}
    assert "weight_effect" in names and not names & {"decoder_effect", "seed_floor"}


def test_the_record_is_byte_equal_again_and_names_its_prompts(study, tmp_path):
    first = measured(study, tmp_path).read_bytes()
    assert measured(study, tmp_path).read_bytes() == first
    protocol = json.loads(first)["protocol"]
    assert protocol["slug"].startswith("prompts-8-")
    assert (protocol["new_tokens"], protocol["seeds"]) == (LIMIT, [1, 2])


@pytest.mark.parametrize(
    ("rows", "limit", "word"),
    [
        ({0: {1: [1]}, 1: {1: [1]}}, LIMIT, "different prompts"),
        ({0: {1: [1]}}, LIMIT + 1, "different limits"),
        ({0: {2: [1]}}, LIMIT, "different seeds"),
    ],
)
def test_texts_that_do_not_belong_together_are_refused(tmp_path, rows, limit, word):
    a, b = write(tmp_path / "a", {0: {1: [1]}}), write(tmp_path / "b", rows, limit)
    with pytest.raises(ValueError, match=word):
        trajectories.compare(a, b)


@pytest.mark.parametrize("content", ["", "{}\n", "not json\n", "[1]\n"])
def test_a_file_that_holds_no_continuations_is_refused_by_name(tmp_path, content):
    (tmp_path / "broken.jsonl").write_text(content)
    with pytest.raises(ValueError, match=r"broken\.jsonl"):
        trajectories.read(tmp_path / "broken.jsonl")


def test_torch_is_not_needed():
    import subprocess
    import sys

    load = f"import sys; sys.path[:0] = {sys.path!r}; import hemorrhage.decoding.trajectories"
    code = f"{load}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
