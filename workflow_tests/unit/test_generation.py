"""The batched loop equals a slow one, for every architecture, batch and length; ends, limits and files are right."""

import json
from types import SimpleNamespace

import pytest
import torch

import tiny
from hemorrhage import plugins
from hemorrhage.architecture import attachments, targets
from hemorrhage.corpus.prompts import Prompt
from hemorrhage.decoding import generation, noise, trajectories

LENGTHS = (12, 5, 9, 1)
LIMIT = 20


@pytest.fixture
def prompts():
    rows = tiny.tokens(len(LENGTHS), max(LENGTHS), seed=3).tolist()
    return [Prompt(i, tuple(row[:length]), "") for i, (row, length) in enumerate(zip(rows, LENGTHS, strict=True))]


@torch.no_grad()
def slowly(model, prompt, temperature=0.0, seed=0, limit=LIMIT):
    """One prompt, no cache, the whole sequence again for every token; softmax(logits / T) by its definition."""
    ids, new = list(prompt.tokens), []
    for step in range(limit):
        logits = model(torch.tensor([ids + new], device=model.device), use_cache=False).logits[0, -1].double().cpu()
        if temperature:
            gumbel = torch.from_numpy(noise.gumbel([(seed, prompt.id)], step, len(logits))[0]).double()
            new.append(int((torch.softmax(logits / temperature, -1).log() + gumbel).argmax()))
        else:
            new.append(int(logits.argmax()))
        if new[-1] in generation.end_tokens(model):
            break
    return new


def tokens(continuations):
    return [made.tokens for made in continuations]


def ending_at(model, ids):
    model.generation_config.eos_token_id = ids
    return model


def test_greedy_equals_a_slow_loop(model, prompts):
    made = generation.continue_prompts(model, prompts, "greedy", {}, limit=LIMIT)
    assert tokens(made) == [slowly(model, prompt) for prompt in prompts]


def test_temperature_equals_a_slow_loop(model, prompts):
    made = generation.continue_prompts(model, prompts, "temperature", {"temperature": 0.7}, seeds=[5], limit=LIMIT)
    assert tokens(made) == [slowly(model, prompt, 0.7, 5) for prompt in prompts]
    assert len({token for row in tokens(made) for token in row}) > 10


def test_greedy_equals_the_models_own_generate(model, prompts):
    prompt = prompts[0]
    ids = torch.tensor([prompt.tokens], device=model.device)
    mask = torch.ones_like(ids)
    own = model.generate(ids, attention_mask=mask, do_sample=False, max_new_tokens=LIMIT, pad_token_id=0)
    made = generation.continue_prompts(model, [prompt], "greedy", {}, limit=LIMIT)
    assert tokens(made) == [own[0, len(prompt.tokens) :].tolist()]


@pytest.mark.parametrize("decoder", ["greedy", "temperature"])
def test_the_batch_does_not_change_a_text(model, prompts, decoder):
    def run(batch, given=prompts):
        return generation.continue_prompts(model, given, decoder, {}, seeds=[1, 2], limit=LIMIT, batch=batch)

    whole = run(8)
    assert tokens(run(1)) == tokens(run(3)) == tokens(whole)
    backwards = {(made.prompt.id, made.seed): made.tokens for made in run(3, prompts[::-1])}
    assert [backwards[made.prompt.id, made.seed] for made in whole] == tokens(whole)


def test_every_seed_gives_another_sample_of_every_prompt(prompts):
    made = generation.continue_prompts(tiny.build(), prompts, "temperature", {}, seeds=[1, 2, 3], limit=LIMIT)
    assert [(m.prompt.id, m.seed) for m in made] == [(p.id, seed) for p in prompts for seed in (1, 2, 3)]
    assert len({tuple(m.tokens) for m in made}) == len(made)


def test_greedy_takes_no_seed(prompts):
    made = generation.continue_prompts(tiny.build(), prompts, "greedy", {}, seeds=[1, 2], limit=3)
    assert [m.seed for m in made] == [None] * len(prompts)


def test_temperature_zero_is_greedy(model, prompts):
    cold = generation.continue_prompts(model, prompts, "temperature", {"temperature": 0}, seeds=[1], limit=LIMIT)
    assert tokens(cold) == tokens(generation.continue_prompts(model, prompts, "greedy", {}, limit=LIMIT))


def test_a_row_ends_with_its_first_end_token_and_the_others_go_on(prompts):
    model = ending_at(tiny.build(), None)
    free = tokens(generation.continue_prompts(model, prompts, "temperature", {}, seeds=[1], limit=LIMIT))
    end = free[1][4]
    made = generation.continue_prompts(ending_at(model, [end, 2]), prompts, "temperature", {}, seeds=[1], limit=LIMIT)
    for row, cut in zip(free, made, strict=True):
        ends = [i for i, token in enumerate(row) if token in (end, 2)]
        assert cut.tokens == row[: ends[0] + 1] if ends else row
        assert cut.finished == bool(ends)
    assert made[1].finished
    assert any(len(m.tokens) > len(made[1].tokens) for m in made)


def test_a_model_that_never_ends_is_cut_at_the_limit(prompts):
    made = generation.continue_prompts(ending_at(tiny.build(), None), prompts, "greedy", {}, limit=7)
    assert [(len(m.tokens), m.finished) for m in made] == [(7, False)] * len(prompts)


def test_reading_stops_when_every_row_has_ended(prompts):
    model = ending_at(tiny.build(), list(range(tiny.VOCABULARY)))
    calls = []
    model.register_forward_hook(lambda *_: calls.append(1))
    made = generation.continue_prompts(model, prompts, "greedy", {}, limit=LIMIT)
    assert [len(m.tokens) for m in made] == [1] * len(prompts)
    assert len(calls) == 1


def test_a_model_that_gives_no_numbers_still_gives_a_text(prompts):
    model = ending_at(tiny.build(), None)
    model.model.norm.weight.data.fill_(float("nan"))
    made = generation.continue_prompts(model, prompts, "temperature", {}, seeds=[1], limit=4)
    assert tokens(made) == [[0] * 4] * len(prompts)


def test_hooks_on_the_model_are_seen(prompts):
    model = ending_at(tiny.build(), None)
    bias = torch.zeros(tiny.VOCABULARY)
    bias[77] = 1e4
    model.get_output_embeddings().register_forward_hook(lambda module, args, output: output + bias)
    assert tokens(generation.continue_prompts(model, prompts, "greedy", {}, limit=3)) == [[77] * 3] * len(prompts)


def test_a_logit_scale_is_seen_as_the_temperature_it_is(prompts):
    model = tiny.build()
    warm = generation.continue_prompts(model, prompts, "temperature", {"temperature": 0.5}, seeds=[1], limit=LIMIT)
    plain = generation.continue_prompts(model, prompts, "temperature", {"temperature": 1}, seeds=[1], limit=LIMIT)
    attachments.attach(model, {"kind": "logit_scale", "factor": 2.0})
    scaled = generation.continue_prompts(model, prompts, "temperature", {"temperature": 1}, seeds=[1], limit=LIMIT)
    assert tokens(scaled) == tokens(warm) != tokens(plain)


def test_activation_quantizers_are_seen_with_and_without_cache_alike(prompts):
    model = tiny.build()
    plain = generation.continue_prompts(model, prompts, "greedy", {}, limit=LIMIT)
    for target in targets.find(model):
        attachments.attach(
            model,
            {"kind": "activation_quantizer", "target": target.name, "bits": 4, "grid": "per_token", "scale": None},
        )
    made = generation.continue_prompts(model, prompts, "greedy", {}, limit=LIMIT)
    assert tokens(made) == [slowly(model, prompt) for prompt in prompts] != tokens(plain)


@pytest.mark.parametrize(("ids", "expected"), [(5, [5]), ([5, 6], [5, 6]), (None, [2])])
def test_end_tokens_are_the_generation_configs_then_the_configs(ids, expected):
    model = tiny.build()
    assert generation.end_tokens(ending_at(model, ids)) == (expected if ids is not None else [2])
    model.config.eos_token_id = None
    assert generation.end_tokens(model) == ([] if ids is None else expected)


def test_a_stochastic_decoder_needs_a_seed(prompts):
    with pytest.raises(ValueError, match=r"decoding\.seeds.*'temperature'"):
        generation.continue_prompts(tiny.build(), prompts, "temperature", {})


def test_a_text_longer_than_the_positions_is_refused(prompts):
    with pytest.raises(ValueError, match="12 tokens and 501 new ones do not fit into the 512 positions"):
        generation.continue_prompts(tiny.build(), prompts, "greedy", {}, limit=501)


def test_an_unknown_decoder_is_refused_with_the_nearest_name(prompts):
    with pytest.raises(ValueError, match="Did you mean 'greedy'"):
        generation.continue_prompts(tiny.build(), prompts, "gredy", {})


def test_a_decoder_may_bring_its_own_loop(prompts, monkeypatch):
    """The second form of the contract, with what a beam or speculative decoder needs: the reader and the rows."""

    def generate(model, rows, settings, limit):
        reader = generation.Reader(model, [prompt.tokens for prompt in rows.prompts])
        first = reader.logits.argmin(-1)
        second = reader.read(first).argmin(-1)
        return torch.stack([first, second], 1)[:, :limit].tolist()

    plugin = SimpleNamespace(module=SimpleNamespace(STOCHASTIC=False, generate=generate), settings=lambda values: None)
    monkeypatch.setattr(plugins, "get", lambda kind, name: plugin)
    model = tiny.build()
    made = generation.continue_prompts(model, prompts, "worst", {}, limit=2, batch=3)
    for prompt, row in zip(prompts, tokens(made), strict=True):
        with torch.no_grad():
            first = int(model(torch.tensor([prompt.tokens])).logits[0, -1].argmin())
            assert row == [first, int(model(torch.tensor([[*prompt.tokens, first]])).logits[0, -1].argmin())]


def test_the_text_file_holds_one_line_per_continuation_and_is_byte_equal_again(prompts, tmp_path):
    model, tokenizer = tiny.build(), tiny.tokenizer()
    for name in ("a.jsonl", "b.jsonl"):
        made = generation.continue_prompts(model, prompts, "temperature", {}, seeds=[1, 2], limit=6)
        generation.write_text(tmp_path / name, made, tokenizer, limit=6)
    assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "b.jsonl").read_bytes()
    lines = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().split("\n")[:-1]]
    assert [(line["prompt"], line["seed"]) for line in lines] == [(p.id, seed) for p in prompts for seed in (1, 2)]
    for line, one in zip(lines, made, strict=True):
        assert line["tokens"] == one.tokens
        assert line["finished"] == one.finished
        assert line["prompt_hash"] == one.prompt.hash
        assert line["text"] == tokenizer.decode(one.tokens, skip_special_tokens=True)
        assert line["limit"] == 6


def test_a_text_with_other_ends_of_lines_is_read_back_whole(tmp_path):
    ends = "\u2028 \u2029 \x85 \n \r\n \x0b \x1c ü"
    tokenizer = SimpleNamespace(decode=lambda tokens, skip_special_tokens: ends[: len(tokens)])
    made = generation.Continuation(Prompt(0, (1, 2), ends), None, list(range(len(ends))), finished=True)
    generation.write_text(tmp_path / "a.jsonl", [made], tokenizer, limit=48)
    found = trajectories.read(tmp_path / "a.jsonl")
    assert list(found) == [0]
    assert (found[0][None]["text"], found[0][None]["prompt_text"]) == (ends, ends)
