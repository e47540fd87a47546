"""What holds for every decoder: one test over all files found."""

import dataclasses
import inspect

import pytest
import torch

import tiny
from hemorrhage import plugins
from hemorrhage.corpus.prompts import Prompt
from hemorrhage.decoding import generation
from hemorrhage.settings import Axis

LIMIT = 12
LENGTHS = (10, 4, 7)


@pytest.fixture(params=sorted(plugins.found("decoders")))
def plugin(request):
    return plugins.get("decoders", request.param)


@pytest.fixture
def prompts():
    rows = tiny.tokens(len(LENGTHS), max(LENGTHS), seed=8).tolist()
    return [Prompt(i, tuple(row[:length]), "") for i, (row, length) in enumerate(zip(rows, LENGTHS, strict=True))]


def run(model, prompts, plugin, settings=None, **options):
    settings = plugin.module.EXAMPLE if settings is None else settings
    slug = settings.get(getattr(plugin.module, "OTHER", ""))
    if slug:
        architecture = next(name for name, config in tiny.CONFIGS.items() if isinstance(model.config, type(config(1))))
        options["others"] = {slug: tiny.build(architecture, seed=5, device=str(model.device))}
    return [
        made.tokens
        for made in generation.continue_prompts(
            model, prompts, plugin.name, settings, limit=LIMIT, **{"seeds": [1, 2], **options}
        )
    ]


def test_it_defines_what_the_contract_names(plugin):
    module = plugin.module
    assert module.__doc__
    assert isinstance(module.STOCHASTIC, bool)
    assert module.Settings.__dataclass_params__.frozen
    assert module.AXIS is None or isinstance(module.AXIS, Axis)
    own, stepwise = getattr(module, "generate", None), getattr(module, "scores", None)
    assert (own is None) != (stepwise is None)
    expected = ["logits", "rows", "settings"] if stepwise else ["model", "rows", "settings", "limit"]
    assert list(inspect.signature(stepwise or own).parameters) == expected
    assert set(getattr(module, "KEEPS", ())) <= {"hidden", "blocks"}
    assert getattr(module, "OTHER", None) in {None, *module.EXAMPLE}


def test_its_axis_is_a_setting_and_its_harmless_end_is_greedy_search(plugin, prompts):
    axis = plugin.module.AXIS
    if axis is None:
        return
    assert axis.setting in {field.name for field in dataclasses.fields(plugin.module.Settings)}
    if axis.harmless is not None:
        harmless = {**plugin.module.EXAMPLE, axis.setting: axis.harmless}
        greedy = run(tiny.build(), prompts, plugins.get("decoders", "greedy"))
        assert run(tiny.build(), prompts, plugin, harmless, seeds=[1]) == greedy


def test_the_batch_does_not_change_its_text(plugin, model, prompts):
    assert run(model, prompts, plugin, batch=1) == run(model, prompts, plugin, batch=8)


def test_it_gives_the_same_text_again_and_another_with_another_seed(plugin, prompts):
    model = tiny.build()
    assert run(model, prompts, plugin) == run(model, prompts, plugin)
    first, second = (run(model, prompts, plugin, seeds=[seed]) for seed in (1, 2))
    assert (first != second) == plugin.module.STOCHASTIC


def test_it_keeps_to_the_limit_and_ends_with_the_end_token(plugin, model, prompts):
    for row in run(model, prompts, plugin):
        assert 1 <= len(row) <= LIMIT
        assert not set(generation.end_tokens(model)) & set(row[:-1])
        assert len(row) == LIMIT or row[-1] in generation.end_tokens(model)


def test_it_leaves_model_and_logits_alone(plugin, prompts):
    model = tiny.build()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    run(model, prompts, plugin)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    if hasattr(plugin.module, "scores"):
        reader = generation.Reader(
            model, [prompt.tokens for prompt in prompts], keep=getattr(plugin.module, "KEEPS", ())
        )
        logits, reader.seen.other = reader.logits, reader.logits.flip(0)
        copy = logits.clone()
        rows = generation.Rows(prompts, [1, 1, 1], torch.empty(3, 0, dtype=torch.long), seen=reader.seen)
        scores = plugin.module.scores(logits, rows, plugin.settings(plugin.module.EXAMPLE))
        assert scores.shape == logits.shape
        assert torch.equal(logits, copy)
