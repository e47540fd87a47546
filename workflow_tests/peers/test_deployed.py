"""What the libraries of deployment write, against this project's own methods and against the libraries' other doors."""

from pathlib import Path

import pytest
import torch
import transformers as hf
import yaml

import tiny
from hemorrhage import cache, checkpoints, plugins
from hemorrhage.architecture import models, targets
from hemorrhage.corpus import texts
from hemorrhage.methods import tensors
from hemorrhage.planning import refusals
from hemorrhage.sources import fetch
from tiny_data import TinyData

pytestmark = pytest.mark.peer
GROUP = 32
WINDOWS, LENGTH = 4, 128


def build(bias=False):
    """A Llama that is wide enough for the words of GPTQ files."""
    config = tiny.CONFIGS["llama"](2)
    config.hidden_size, config.intermediate_size, config.num_key_value_heads, config.head_dim = 64, 128, 4, 16
    config.attention_bias = bias
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return hf.AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()


def apply(method, settings, model, data):
    plugin = plugins.get("modifications", method)
    if refusals.missing(plugin):
        pytest.skip(f"{method}: its library is not installed")
    return plugin.module.apply(model, plugin.settings(settings), data)


@pytest.fixture
def data(tmp_path):
    """Data whose tokenizer is there for the libraries that want one."""
    build().save_pretrained(tmp_path / "base")
    tiny.tokenizer().save_pretrained(tmp_path / "base")
    result = TinyData()
    result.base = tmp_path / "base"
    return result


@pytest.mark.parametrize("method", ["gptqmodel_gptq", "optimum_gptq"])
@pytest.mark.parametrize(
    "settings",
    [{}, {"symmetric": False}, {"act_order": True}, {"bits": 8}, {"bits": 3}, {"group": None}],
    ids=["4 bits", "zero points", "act_order", "8 bits", "3 bits", "whole rows"],
)
def test_gptq_files_are_smaller_lie_on_their_grid_and_come_out_the_same_twice(method, settings, data, tmp_path):
    bits, group = settings.get("bits", 4), settings.get("group", GROUP)
    made = []
    for _ in range(2):
        model = build()
        made.append((model, apply(method, {"group": GROUP, **settings}, model, data)))
    (model, achieved), (again, achieved_again) = made
    assert checkpoints.fingerprint(model) == checkpoints.fingerprint(again)
    assert achieved == achieved_again
    before = dict(build().named_parameters())
    found = targets.find(model)
    differing = {key for key, parameter in model.named_parameters() if not torch.equal(parameter, before[key])}
    assert differing == {target.name for target in found}
    for target in found:
        if not settings.get("act_order"):  # its groups are not of neighbours
            groups = target.weight.reshape(-1, group or target.in_features)
            assert max(len(row.unique()) for row in groups) <= 2**bits, target.name
    # Codes read one step off (a format under the wrong name) would double it.
    assert achieved["relative_error"] < {8: 0.02, 4: 0.2, 3: 0.4}[bits]
    assert achieved["bytes_on_disk"] < 0.7 * achieved["bytes_before"]


def test_the_kept_gptq_file_is_the_one_that_was_measured(data, tmp_path):
    pytest.importorskip("gptqmodel")
    settings = vars(plugins.get("modifications", "gptqmodel_gptq").settings({"group": GROUP}))
    _, record = checkpoints.follow([{"method": "gptqmodel_gptq", "settings": settings}], data)
    assert checkpoints.pack(record, data, tmp_path / "packed")
    assert not (Path.cwd() / "logs").exists()


def test_biases_that_half_precision_cannot_hold_are_refused(data):
    model = build(bias=True)
    model.model.layers[1].self_attn.q_proj.bias.data += 0.1
    with pytest.raises(ValueError, match=r"layers.1.self_attn.q_proj has more digits than half precision"):
        apply("gptqmodel_gptq", {"group": GROUP}, model, data)


@pytest.mark.parametrize("symmetric", [True, False])
def test_compressed_tensors_holds_what_llm_compressor_writes(symmetric, data, tmp_path):
    """It asks for the config of a folder that the model came from, so both sides start from one."""
    llmcompressor = pytest.importorskip("llmcompressor")
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
    from llmcompressor.modifiers.quantization import QuantizationModifier

    from hemorrhage.architecture import packed

    grid = QuantizationArgs(num_bits=4, type="int", symmetric=symmetric, strategy="group", group_size=GROUP)
    scheme = {"group_0": QuantizationScheme(targets=["Linear"], weights=grid)}
    theirs = models.load(data.base, "float32", "cpu")
    llmcompressor.oneshot(model=theirs, recipe=QuantizationModifier(config_groups=scheme, ignore=["lm_head"]))
    theirs.save_pretrained(tmp_path / "theirs", save_compressed=True)
    model = build()
    apply("compressed_tensors", {"bits": 4, "group": GROUP, "symmetric": symmetric}, model, data)
    read = packed.load(tmp_path / "theirs", "compressed-tensors", "float32", "cpu")
    assert checkpoints.fingerprint(read) == checkpoints.fingerprint(model)


@pytest.fixture(scope="module")
def default_model(tmp_path_factory):
    """(base folder, token ids [WINDOWS, LENGTH]) of the default study's model and text."""
    config = yaml.safe_load((Path(__file__).resolve().parents[2] / "config.yaml").read_text(encoding="utf8"))
    source, text = config["models"]["smollm2-135m"], config["texts"]["wikipedia"]
    try:
        weights = fetch.fetch(source["source"], source["sha256"], cache.downloads())
        path = fetch.fetch(text["source"], text["sha256"], cache.downloads())
    except (OSError, ValueError) as error:
        pytest.skip(f"the default model cannot be fetched: {error}")
    base = tmp_path_factory.mktemp("default") / "base"
    models.prepare(weights, base, source="peer")
    tokenizer = models.load_tokenizer(base)
    rows = [tokenizer(article.text)["input_ids"] for article in texts.articles(path, text["format"])]
    return base, torch.tensor([row[:LENGTH] for row in rows if len(row) >= LENGTH][:WINDOWS])


def mean_kl(model, other, tokens):
    """Mean KL(model ‖ other) in nats."""
    with torch.no_grad():
        log_p, log_q = (each(tokens).logits.float().log_softmax(-1) for each in (model, other))
    return float((log_p.exp() * (log_p - log_q)).sum(-1).mean())


def compared(method, settings, own, own_settings, default_model):
    """(KL(library ‖ ours), KL(reference ‖ ours), relative distance of the weights)."""
    base, tokens = default_model
    data = TinyData()
    data.base = base
    reference, theirs, ours = (models.load(base, "float32", "cpu") for _ in range(3))
    apply(method, settings, theirs, data)
    apply(own, own_settings, ours, data)
    pairs = zip(targets.find(theirs), targets.find(ours), strict=True)
    errors = [tensors.relative_error(one.weight, other.weight) for one, other in pairs]
    distance = (sum(error for error, _ in errors) / sum(energy for _, energy in errors)) ** 0.5
    return mean_kl(theirs, ours, tokens), mean_kl(reference, ours, tokens), distance


@pytest.mark.parametrize(
    ("method", "settings", "own", "own_settings"),
    [
        ("bitsandbytes_nf4", {}, "nf4", {"group": 64}),
        ("bitsandbytes_nf4", {"table": "fp4"}, "fp4", {"group": 64}),
        ("bitsandbytes_int8", {}, "int8", {}),
    ],
    ids=["nf4", "fp4", "int8"],
)
def test_bitsandbytes_does_to_the_default_model_what_ours_does(method, settings, own, own_settings, default_model):
    between, damage, distance = compared(method, settings, own, own_settings, default_model)
    print(
        f"{method} {settings}: KL(library‖ours) {between:.3g}, KL(reference‖ours) {damage:.3g}, weights {distance:.3g}"
    )
    assert between <= damage / 4


def test_torchao_does_to_the_default_model_as_much_as_ours_does(default_model):
    """Its grid has another step (docs/peers.md), so its rounding is another: alike in size, not in place."""
    base, tokens = default_model
    between, damage, distance = compared("torchao_int8", {}, "int8", {}, default_model)
    reference, theirs = (models.load(base, "float32", "cpu") for _ in range(2))
    data = TinyData()
    data.base = base
    apply("torchao_int8", {}, theirs, data)
    own_damage = mean_kl(reference, theirs, tokens)
    print(
        f"KL(library‖ours) {between:.3g}, KL(reference‖ours) {damage:.3g} and ‖library {own_damage:.3g}, {distance:.3g}"
    )
    assert 0.5 < own_damage / damage < 2
    assert between < 4 * damage
