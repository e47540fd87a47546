"""Each decoder equals its definition: token for token on a tiny model, distributions by chi-square."""

import copy
import math
from types import SimpleNamespace

import numpy as np
import pytest
import slow_decoders as slow
import torch

import tiny
from hemorrhage import plugins
from hemorrhage.architecture import exits
from hemorrhage.corpus.prompts import Prompt
from hemorrhage.decoders import dola, mirostat, speculative
from hemorrhage.decoding import generation, noise, truncation
from hemorrhage.decoding.reader import Reader, numbers

LENGTHS, LIMIT = (9, 4, 6), 10
CRITICAL = 24.32  # chi-square with 7 degrees of freedom, p = 0.001
LOGITS = torch.tensor([1.0, 0.5, -0.3, 2.0, 0.0, -0.6, 1.7, 0.9])


@pytest.fixture(scope="module")
def prompts():
    rows = tiny.tokens(len(LENGTHS), max(LENGTHS), seed=21).tolist()
    return [Prompt(i, tuple(row[:length]), "") for i, (row, length) in enumerate(zip(rows, LENGTHS, strict=True))]


@pytest.fixture(scope="module")
def llama():
    model = tiny.build("llama", blocks=6)
    model.generation_config.eos_token_id = [2, 40]  # ends happen
    return model


@pytest.fixture(scope="module")
def other():
    return tiny.build("llama", blocks=6, seed=9)


def tokens(model, prompts, decoder, settings=None, **options):
    given = {"seeds": [3], "limit": LIMIT, **options}
    made = generation.continue_prompts(model, prompts, decoder, settings or {}, **given)
    return [entry.tokens for entry in made]


@pytest.mark.parametrize(
    ("decoder", "settings", "rule"),
    [
        ("top_p", {"p": 0.8}, lambda x: slow.top_p(x, 0.8)),
        ("top_k", {"k": 7}, lambda x: slow.top_k(x, 7)),
        ("min_p", {"share": 0.1}, lambda x: slow.min_p(x, 0.1)),
        ("eta", {"epsilon": 0.02}, lambda x: slow.eta(x, 0.02)),
        ("typical", {"mass": 0.7}, lambda x: slow.typical(x, 0.7)),
    ],
)
def test_truncated_sampling_equals_its_definition(llama, prompts, decoder, settings, rule):
    expected = [
        slow.walk(llama, p, LIMIT, lambda ids, new, p=p: slow.drawn(rule(slow.logits_of(llama, ids)), p, 3, len(new)))
        for p in prompts
    ]
    assert tokens(llama, prompts, decoder, settings) == expected


@pytest.mark.parametrize(
    ("decoder", "settings", "rule"),
    [
        ("contrastive", {"alpha": 0.6, "k": 5}, lambda m, ids: slow.contrastive(m, ids, 0.6, 5)),
        ("fsd", {"alpha": 0.4, "k": 5}, lambda m, ids: slow.fsd(m, ids, 0.4, 5)),
        ("fsd_d", {"alpha": 0.6, "k": 5, "n": 3}, lambda m, ids: slow.fsd_d(m, ids, 0.6, 5, 3, 0.9)),
        ("dola", {}, lambda m, ids: slow.dola(m, ids, [2], 0.1, 1.2)),
        ("dola", {"half": "high"}, lambda m, ids: slow.dola(m, ids, [4], 0.1, 1.2)),
    ],
)
def test_deterministic_decoders_equal_their_definition(llama, prompts, decoder, settings, rule):
    expected = [slow.walk(llama, p, LIMIT, lambda ids, new: rule(llama, ids)) for p in prompts]
    assert tokens(llama, prompts, decoder, settings) == expected


@pytest.mark.parametrize(("half", "exits"), [("low", [2, 4]), ("high", [6, 8, 10])])
def test_dola_chooses_among_several_early_blocks_as_its_definition_does(prompts, half, exits):
    deep = tiny.build("llama", blocks=12)
    expected = [slow.walk(deep, p, 8, lambda ids, new: slow.dola(deep, ids, exits, 0.1, 1.2)) for p in prompts]
    assert tokens(deep, prompts, "dola", {"half": half}, limit=8) == expected


def test_dola_takes_of_every_row_the_early_block_that_diverges_most(llama, monkeypatch):
    states = torch.randn(6, 5, llama.config.hidden_size, generator=torch.Generator().manual_seed(2))
    states[3, :3] = states[5, :3]  # what is read after block 4 does not diverge at all in the first rows
    states[1, 3:] = states[5, 3:]  # nor what is read after block 2 in the others
    final = exits.exit_logits(llama, states[5]).log_softmax(-1)
    early = torch.stack([exits.exit_logits(llama, states[count - 1]).log_softmax(-1) for count in (4, 2)])
    monkeypatch.setattr(dola, "candidates", lambda depth, half: [4, 2])
    found = dola.farthest(final, SimpleNamespace(model=llama, blocks=list(states)), "low")
    torch.testing.assert_close(found, early[[1, 1, 1, 0, 0], range(5)])


def test_the_divergence_of_dola_is_that_of_jensen_and_shannon():
    first, second = torch.randn(2, 7, 11, generator=torch.Generator().manual_seed(3)).mul(3).log_softmax(-1).unbind()
    second = second.masked_fill(torch.arange(11) == 4, -float("inf")).log_softmax(-1)
    p, q = first.double().exp(), second.double().exp()
    expected = ((p * (2 * p / (p + q)).log()).sum(-1) + torch.special.xlogy(q, 2 * q / (p + q)).sum(-1)) / 2
    torch.testing.assert_close(dola.jensen_shannon(first, second).double(), expected, rtol=1e-5, atol=1e-6)


def test_contrastive_decoding_equals_its_definition(llama, other, prompts):
    expected = [
        slow.walk(llama, p, LIMIT, lambda ids, new: slow.contrastive_decoding(llama, other, ids, 0.1, 0.5))
        for p in prompts
    ]
    assert tokens(llama, prompts, "contrastive_decoding", {"weak": "w"}, others={"w": other}) == expected
    assert expected != tokens(llama, prompts, "greedy")


@pytest.mark.parametrize(("beams", "groups", "penalty"), [(4, 1, 0.0), (4, 2, 1.0), (3, 3, 0.5)])
def test_beams_equal_sorted_lists(llama, prompts, beams, groups, penalty):
    expected = [slow.diverse_beam(llama, prompt, 6, beams, groups, penalty) for prompt in prompts]
    found = tokens(llama, prompts, "diverse_beam", {"beams": beams, "groups": groups, "penalty": penalty}, limit=6)
    assert found == expected


@pytest.mark.parametrize("ends", [None, [2, 40], list(range(0, 128, 9))])
def test_beam_search_equals_transformers(llama, prompts, ends):
    model = copy.deepcopy(llama)
    model.generation_config.eos_token_id = ends
    model.config.eos_token_id = None
    for prompt, found in zip(prompts, tokens(model, prompts, "beam", {"beams": 4}), strict=True):
        ids = torch.tensor([prompt.tokens])
        own = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            num_beams=4,
            do_sample=False,
            eos_token_id=ends,
            max_new_tokens=LIMIT,
            pad_token_id=0,
        )[0, len(prompt.tokens) :].tolist()
        assert own[: len(found)] == found
        assert not any(own[len(found) :])


@pytest.mark.parametrize(
    ("decoder", "settings"),
    [
        ("beam", {"beams": 1}),
        ("diverse_beam", {"beams": 1, "groups": 1}),
        ("top_k", {"k": 1}),
        ("top_p", {"p": 0}),
        ("contrastive", {"alpha": 0}),
        ("fsd", {"alpha": 0}),
        ("fsd_d", {"alpha": 0}),
        ("dola", {"relative_top": 1}),
        ("contrastive_decoding", {"weak": "w", "beta": 0}),
        ("contrastive_decoding", {"weak": "w", "alpha": 1}),
    ],
)
def test_the_harmless_end_is_greedy_search(llama, other, prompts, decoder, settings):
    assert tokens(llama, prompts, decoder, settings, others={"w": other}) == tokens(llama, prompts, "greedy")


def test_a_draft_equal_to_the_variant_gives_the_text_of_temperature_one(llama, prompts):
    found = tokens(llama, prompts, "speculative", {"draft": "d"}, others={"d": copy.deepcopy(llama)})
    assert found == tokens(llama, prompts, "temperature", {"temperature": 1})


@pytest.mark.parametrize("seed", range(3))
def test_speculative_sampling_leaves_the_distribution_as_it_is(seed):
    """Whatever the draft: 8000 draws by chi-square; the draft's own distribution is far outside."""
    draft = 2 * torch.randn(8, generator=torch.Generator().manual_seed(seed))
    count = 8000
    prompt = [SimpleNamespace(id=i, tokens=(1,)) for i in range(count)]
    rows = generation.Rows(prompt, [seed] * count, torch.empty(count, 0, dtype=torch.long))
    drawn = speculative.choose(LOGITS.expand(count, 8), draft.expand(count, 8), rows)
    seen = torch.bincount(drawn, minlength=8).double()

    def distance(logits):
        expected = count * logits.double().softmax(-1)
        return float(((seen - expected) ** 2 / expected).sum())

    assert distance(LOGITS) < CRITICAL < distance(draft)


@pytest.mark.parametrize(
    ("decoder", "settings", "kept"),
    [
        ("top_p", {"p": 0.7}, {3, 6, 0}),
        ("top_k", {"k": 3}, {3, 6, 0}),
        ("min_p", {"share": 0.3}, {3, 6, 0, 7}),
        ("eta", {"epsilon": 0.2}, {3, 6, 0, 7}),
        ("mirostat", {"target": 0.6}, None),
        ("typical", {"mass": 0.5}, None),
    ],
)
def test_kept_tokens_are_drawn_in_the_models_proportions(decoder, settings, kept):
    plugin = plugins.get("decoders", decoder)
    rows = generation.Rows([Prompt(0, (1,), "")], [1], torch.empty(1, 0, dtype=torch.long))
    scores = plugin.module.scores(LOGITS[None], rows, plugin.settings(settings))[0]
    found = {i for i, score in enumerate(scores) if score > -math.inf}
    assert found == (kept or found) and 0 < len(found) < 8
    draws = np.concatenate([noise.gumbel([(1, 0)], step, 8) for step in range(4000)])
    seen = np.bincount((scores.numpy() + draws).argmax(1), minlength=8)
    share = np.array([math.exp(LOGITS[i]) if i in found else 0.0 for i in range(8)])
    expected = 4000 * share / share.sum()
    assert seen[expected == 0].sum() == 0
    inside = expected > 0
    assert ((seen[inside] - expected[inside]) ** 2 / expected[inside]).sum() < CRITICAL


def test_mirostat_holds_its_surprise():
    """On a fixed Zipf distribution the mean surprise of a long text comes near the target, from either side."""
    logits = -1.1 * torch.log(torch.arange(1.0, 2001.0))[None]
    for target in (3.5, 5.0):
        settings = mirostat.Settings(target)
        rows = generation.Rows([Prompt(0, (1,), "")], [1], torch.empty(1, 0).long())
        for _ in range(400):
            scores = mirostat.scores(logits, rows, settings) + rows.gumbel(2000)
            rows.tokens = torch.cat([rows.tokens, scores.argmax(-1, keepdim=True)], dim=1)
        bits = -logits.log_softmax(-1)[0, rows.tokens[0]] / math.log(2)
        assert abs(float(bits[50:].mean()) - target) < 0.1


def test_mirostat_moves_its_bound_by_the_surprise_of_the_token():
    settings, rows = mirostat.Settings(3), generation.Rows([Prompt(0, (1,), "")], [1], torch.empty(1, 0).long())
    mirostat.scores(LOGITS[None], rows, settings)
    assert rows.state["bounds"] == [6.0]
    rows.tokens = torch.tensor([[4]])
    mirostat.scores(LOGITS[None], rows, settings)
    surprise = -float(LOGITS.log_softmax(-1)[4]) / math.log(2)
    assert rows.state["bounds"] == [pytest.approx(6 - (surprise - 3), rel=1e-6)]


def test_a_text_may_leave_through_the_final_norm(model):
    seen = Reader(model, [[5, 6, 7]], keep={"blocks", "hidden"})
    torch.testing.assert_close(exits.exit_logits(model, seen.seen.blocks[-1]), seen.logits, rtol=1e-4, atol=1e-4)
    assert len(seen.seen.blocks) == model.config.num_hidden_layers
    assert seen.seen.hidden.shape[:2] == (1, 3)


def test_rows_can_be_copied_and_dropped(model):
    """What beams do to the cache: [0, 1] becomes [1, 0, 1], and goes on as fresh rows would."""
    reader = Reader(model, [[5, 6, 7, 8], [9, 10]], keep={"hidden"})
    reader.reorder(torch.tensor([1, 0, 1], device=model.device))
    found = reader.read(torch.tensor([11, 12, 13], device=model.device))
    fresh = [Reader(model, [ids]).logits[0] for ids in ([9, 10, 11], [5, 6, 7, 8, 12], [9, 10, 13])]
    torch.testing.assert_close(found, torch.stack(fresh), rtol=1e-4, atol=1e-4)
    assert reader.seen.hidden.shape[:2] == (3, 5)


def test_a_cache_that_cannot_be_reordered_is_refused(llama):
    reader = Reader(llama, [[5]])
    reader.cache = object()
    with pytest.raises(ValueError, match="cannot be reordered"):
        reader.reorder(torch.tensor([0, 0]))


@pytest.mark.parametrize("decoder", sorted(plugins.found("decoders")))
def test_a_broken_model_still_gives_a_text(decoder, other, prompts):
    broken = copy.deepcopy(other)
    broken.model.norm.weight.data.fill_(float("nan"))
    settings = {name: "w" for name in [getattr(plugins.get("decoders", decoder).module, "OTHER", None)] if name}
    for row in tokens(broken, prompts, decoder, settings, limit=3, others={"w": other}):
        assert 1 <= len(row) <= 3


def test_numbers_are_made_of_anything():
    nan, inf = math.nan, math.inf
    found = numbers(torch.tensor([[nan, 1.0, -inf], [nan, nan, nan], [1.0, inf, 2.0]]))
    assert found[0].tolist() == [-inf, 1.0, -inf]
    assert found[1].tolist() == [0.0, -inf, -inf]
    assert int(found[2].argmax()) == 1 and torch.isfinite(found[2]).all()


@pytest.mark.parametrize(
    ("depth", "half", "expected"),
    [
        (30, "low", [2, 4, 6, 8, 10, 12, 14]),
        (30, "high", [16, 18, 20, 22, 24, 26, 28]),
        (32, "low", [2, 4, 6, 8, 10, 12, 14]),
        (32, "high", [16, 18, 20, 22, 24, 26, 28, 30]),
        (4, "low", [2]),
        (4, "high", [2]),
        (3, "low", [1]),
        (3, "high", [2]),
        (1, "low", [1]),
    ],
)
def test_early_blocks_are_the_even_ones_of_a_half(depth, half, expected):
    assert dola.candidates(depth, half) == expected


@pytest.mark.parametrize(
    ("decoder", "settings", "word"),
    [
        ("top_p", {"p": 1.1}, "p: "),
        ("top_k", {"k": 0}, "k: "),
        ("beam", {"beams": 0}, "beams: "),
        ("diverse_beam", {"beams": 4, "groups": 3}, "groups: "),
        ("dola", {"half": "both"}, "half"),
        ("contrastive_decoding", {}, "weak"),
        ("speculative", {}, "draft"),
        ("mirostat", {"target": -1}, "target: "),
    ],
)
def test_bad_settings_are_refused_by_name(decoder, settings, word):
    with pytest.raises(ValueError, match=word):
        plugins.get("decoders", decoder).settings(settings)


@pytest.mark.parametrize("decoder", ["contrastive_decoding", "speculative"])
def test_a_missing_or_unlike_other_variant_is_refused(decoder, llama, prompts):
    name = plugins.get("decoders", decoder).module.OTHER
    with pytest.raises(ValueError, match=rf"{name}: the variant 'gone' is not there"):
        tokens(llama, prompts, decoder, {name: "gone"})


@pytest.mark.parametrize("mass", [0.0, 0.3, 0.9, 1.0])
@pytest.mark.parametrize("spread", [0.0, 0.05, 3.0, 30.0])
@pytest.mark.parametrize("rounded", [False, True])
def test_the_cut_is_where_a_whole_sort_puts_it(mass, spread, rounded):
    """Flat and peaked, with many equal keys, with tokens that cannot occur and with one beyond all others."""
    logits = spread * torch.randn(4, 30000, generator=torch.Generator().manual_seed(0))
    if rounded:
        logits = logits.round(decimals=1)
    logits[1, ::3], logits[2, 77] = -math.inf, 8e37
    shares = logits.softmax(-1)
    order = shares.argsort(dim=-1, descending=True, stable=True)
    before = shares.gather(-1, order).cumsum(-1) - shares.gather(-1, order)
    expected = [
        {int(i) for i, mass_before in zip(row, masses, strict=True) if mass_before < mass} | {int(row[0])}
        for row, masses in zip(order, before, strict=True)
    ]
    found = ~truncation.beyond_mass(-logits, shares, mass)
    assert [set(row.nonzero()[:, 0].tolist()) for row in found] == expected
