"""Along a given text: what is compared is what free running would choose there, and equal models do not differ."""

import numpy as np
import pytest
import torch

import tiny
from hemorrhage import plugins
from hemorrhage.analysis import tables
from hemorrhage.corpus.prompts import Prompt
from hemorrhage.decoding import generation, side_by_side, teacher_forced, trajectories
from hemorrhage.measuring import forced

LIMIT, SEEDS = 6, [1, 2]
STEPWISE = sorted(name for name, plugin in plugins.found("decoders").items() if hasattr(plugin.module, "scores"))


@pytest.fixture(scope="module")
def prompts():
    rows = tiny.tokens(3, 8, seed=4).tolist()
    return [Prompt(i, tuple(row[:length]), "p") for i, (row, length) in enumerate(zip(rows, (8, 3, 6), strict=True))]


def settings_of(name):
    return plugins.get("decoders", name).module.EXAMPLE


def others_of(architecture="llama"):
    return {"other": tiny.build(architecture, seed=8)}


@pytest.mark.parametrize("architecture", ["llama", "mamba"])
@pytest.mark.parametrize("name", STEPWISE)
def test_along_its_own_text_a_decoder_chooses_that_text(name, architecture, prompts):
    """So the scores place by place are those of the loop, noise and state included."""
    model, others = tiny.build(architecture), others_of(architecture)
    model.generation_config.eos_token_id = model.config.eos_token_id = None
    module = plugins.get("decoders", name).module
    made = generation.continue_prompts(model, prompts, name, settings_of(name), [1], LIMIT, others=others)
    texts = [(entry.prompt, entry.tokens) for entry in made]
    reading, weak = forced.Reading(model, texts), forced.Reading(others["other"], texts)
    weak = weak if getattr(module, "OTHER", None) else None
    for row, text in enumerate(texts):
        settings = plugins.get("decoders", name).settings(settings_of(name))
        scores = forced._walk(reading, weak, row, text, module, settings)
        if module.STOCHASTIC:
            scores = scores + torch.stack(
                [forced._noise(text[0].id, 1, step, scores.shape[-1]) for step in range(LIMIT)]
            )
        assert scores.argmax(-1).tolist() == text[1]


@pytest.mark.parametrize("name", STEPWISE)
def test_equal_models_agree_and_unequal_ones_do_not(name, prompts):
    model, other, others = tiny.build(), tiny.build(seed=3), others_of()
    texts = [(prompt, [5, 6, 7, 8]) for prompt in prompts]
    decoder = {"name": name, "settings": settings_of(name)}
    same = forced.compare(model, tiny.build(), texts, decoder, SEEDS, others)
    assert (same["weight_effect.agreement"] == same["count"]).all() and same["count"].tolist() == [4, 4, 4]
    assert same["weight_effect.total_variation"].max() < 1e-6 and np.abs(same["weight_effect.kl"]).max() < 1e-6
    apart = forced.compare(model, other, texts, decoder, SEEDS, others)
    assert apart["weight_effect.agreement"].sum() < 12
    assert apart["weight_effect.total_variation"].sum() > 1
    assert (apart["weight_effect.kl_count"] <= apart["count"]).all()


def slowly(model, text, seeds, distribution):
    """Greedy's choices along a text, those of draws from ``distribution(p)``, and its KL to p; a pass per place."""
    prompt, tokens = text
    same, kl = 0.0, 0.0
    for place in range(len(tokens)):
        ids = torch.tensor([[*prompt.tokens, *tokens[:place]]])
        p = model(ids, use_cache=False).logits[0, -1].double().softmax(-1).detach().numpy()
        q = distribution(p)
        drawn = [
            np.argmax(np.log(np.maximum(q, 1e-300)) + forced._noise(prompt.id, s, place, len(p)).numpy()) for s in seeds
        ]
        same += np.mean([choice == p.argmax() for choice in drawn])
        kl += sum(b * np.log(b / a) for a, b in zip(p, q, strict=True) if b > 0)
    return same, kl


def of_the_likeliest(k):
    def cut(p):
        q = np.where(p >= np.sort(p)[-k], p, 0.0)
        return q / q.sum()

    return cut


@pytest.mark.parametrize(
    ("name", "settings", "distribution"),
    [
        ("top_k", {"k": 5}, of_the_likeliest(5)),
        ("temperature", {"temperature": 0.5}, lambda p: p**2 / (p**2).sum()),
        ("temperature", {"temperature": 0}, of_the_likeliest(1)),
        ("temperature", {"temperature": 1}, lambda p: p),
        ("greedy", {}, of_the_likeliest(1)),
        ("dola", {"relative_top": 1}, of_the_likeliest(1)),
    ],
)
def test_a_decoder_is_compared_with_greedy_search_on_the_weights_of_the_variant(name, settings, distribution, prompts):
    variant, texts = tiny.build(seed=3), [(prompt, [5, 6, 7, 8]) for prompt in prompts]
    found = forced.compare(tiny.build(), variant, texts, {"name": name, "settings": settings}, SEEDS)
    expected = [slowly(variant, text, SEEDS, distribution) for text in texts]
    assert found["decoder_effect.agreement"].tolist() == [same for same, _ in expected]
    assert found["decoder_effect.kl"] == pytest.approx([kl for _, kl in expected], rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("name", STEPWISE)
def test_the_effect_of_a_decoder_is_finite_and_takes_no_more_forward_passes(name, prompts):
    models, others = [tiny.build(), tiny.build(seed=3)], others_of()
    texts = [(prompt, [5, 6, 7, 8]) for prompt in prompts]
    read, passes = tuple(forced.Reading(model, texts) for model in models), []
    for model in models:
        model.register_forward_pre_hook(lambda *_: passes.append(1))
    found = forced.compare(*models, texts, {"name": name, "settings": settings_of(name)}, SEEDS, others, read)
    assert np.isfinite(found["decoder_effect.kl"]).all() and (found["decoder_effect.kl"] >= -1e-9).all()
    assert not passes


def test_a_decoder_without_scores_has_no_choices_along_a_text(prompts):
    model = tiny.build()
    assert forced.compare(model, model, [(prompts[0], [5])], {"name": "beam", "settings": {}}, SEEDS) is None


@pytest.fixture
def written(prompts, tmp_path):
    """Texts of reference and variant with two decoders in a result folder, and the archive of each."""
    decoders = {
        "greedy": {"name": "greedy", "settings": {}},
        "beam": {"name": "beam", "settings": {}},
        "top_k": {"name": "top_k", "settings": {"k": 5}},
    }
    models = {"identity": tiny.build(), "broken": tiny.build(seed=3)}
    root = tmp_path / "models"
    for variant, model in models.items():
        for slug, decoder in decoders.items():
            made = generation.continue_prompts(model, prompts, decoder["name"], decoder["settings"], SEEDS, LIMIT)
            generation.write_text(
                root / "m" / "variants" / variant / "text" / f"{slug}.jsonl", made, tiny.tokenizer(), LIMIT
            )
    for variant, model in models.items():
        folder = root / "m" / "variants" / variant
        forced.measure(
            models["identity"],
            model,
            root / "m" / "variants" / "identity" / "text" / "greedy.jsonl",
            decoders,
            {slug: folder / "text" / f"{slug}.jsonl" for slug in decoders},
            SEEDS,
            {},
            folder / "forced.npz",
        )
        for slug in decoders:
            trajectories.measure(
                folder / "text" / f"{slug}.jsonl",
                folder / "text" / "greedy.jsonl",
                root / "m" / "variants" / "identity" / "text" / f"{slug}.jsonl",
                folder / "text" / f"{slug}.json",
                model="m",
                variant=variant,
                decoder=slug,
                forced=folder / "forced.npz",
            )
    return root


def test_records_hold_forced_choices_and_their_amplification(written):
    from hemorrhage import records

    folder = written / "m" / "variants"
    own = records.read(folder / "identity" / "text" / "top_k.json")
    assert own["weight_effect.forced.token_agreement"].value == 1
    assert own["decoder_effect.forced.token_agreement"].value < 1
    assert own["decoder_effect.forced.kl_from_softmax"].value > 0
    assert not any(entry.metric.startswith("amplification") for entry in own.measurement.metrics)
    found = records.read(folder / "broken" / "text" / "greedy.json")
    expected = (1 - found["weight_effect.token_agreement"].value) / (
        1 - found["weight_effect.forced.token_agreement"].value
    )
    assert found["amplification"].value == found["amplification_common"].value == pytest.approx(expected, rel=1e-6)
    assert found["reference_nll"].value > 3
    assert found["reference_nll"].n == 3 and found["amplification"].n == 3 * LIMIT
    beam = {entry.metric for entry in records.read(folder / "broken" / "text" / "beam.json").measurement.metrics}
    assert "amplification_common" in beam and "amplification" not in beam
    assert not any("forced." in name for name in beam)
    assert not any(entry.metric.startswith("decoder_effect.forced") for entry in found.measurement.metrics)


def test_texts_stand_side_by_side(written, tmp_path):
    side_by_side.collect_texts(["m"], ["identity", "broken"], ["greedy", "top_k"], tmp_path / "texts.tsv", written)
    table = tables.read(tmp_path / "texts.tsv")
    assert list(table.columns) == side_by_side.TEXTS
    assert len(table) == 3 + 6 and set(table.variant) == {"broken"}
    lines = trajectories.read(written / "m" / "variants" / "broken" / "text" / "greedy.jsonl")
    first = table[table.decoder == "greedy"].iloc[0]
    assert first.shared + first.text == side_by_side._line(lines[0][None]["text"])
    assert set(table.failure) <= {"same", "loop", "early stop", "garble", "drift"}


def test_the_curves_are_collected(written, tmp_path):
    paths = sorted(map(str, written.glob("m/variants/*/text/*.json")))
    side_by_side.collect_divergence(paths, tmp_path / "divergence.tsv")
    table = tables.read(tmp_path / "divergence.tsv")
    own = table[(table.variant == "identity") & (table.effect == "weight_effect")]
    assert (own.value == 1).all() and len(own) == 3 * (LIMIT + 1)
    start = table[table.place == "0"]
    assert (start.value == 1).all()


def test_amplification_is_a_ratio_of_means():
    arrays = {"count.a": np.array([4.0, 4, 4]), "weight_effect.agreement.a": np.array([4.0, 3, 2])}
    index = np.zeros((10, 3), dtype=int)
    assert teacher_forced.amplification(arrays, "a", np.array([1.0, 0.5, 0.25]), index).value == pytest.approx(5 / 3)
    assert teacher_forced.amplification(arrays, "a", np.array([1.0, 0.5, 0.25]), index).n == 12
    assert teacher_forced.amplification(arrays, "b", np.ones(3), index) is None
    arrays["weight_effect.agreement.a"] = arrays["count.a"]
    assert teacher_forced.amplification(arrays, "a", np.ones(3), index) is None


def test_how_the_reference_finds_texts_is_the_mean_over_the_texts_that_hold_something():
    values = np.array([[1.0, 3.0], [np.nan, 5.0], [np.nan, np.nan]])
    found = teacher_forced._reference_nll(values, np.zeros((10, 3), dtype=int))
    assert (found.value, found.n, found.blocks) == (3.5, 3, 2)
