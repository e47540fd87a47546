"""Each named protocol against its origin's own definition, computed here without the project's windows."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch

import tiny
from hemorrhage.corpus import tokens
from hemorrhage.corpus.protocol import Protocol
from hemorrhage.corpus.texts import Article
from hemorrhage.measuring import protocol_effects

SMALL = {
    "gptq-2048": {"window": 64, "stride": 64},
    "llamacpp-half-512": {"window": 64, "stride": 64},
    "hf-strided": {"window": 64, "stride": 32},
    "lm-eval-rolling": {"window": 64, "stride": 64},
}


@dataclass
class Case:
    model: torch.nn.Module
    tokenizer: object
    articles: list[Article]
    sizes: dict[str, dict[str, int]]

    @property
    def text(self):
        return "\n\n".join(article.text for article in self.articles)

    @property
    def ids(self):
        return self.tokenizer(self.text, add_special_tokens=False, verbose=False)["input_ids"]

    def ours(self, name, windows="all"):
        protocol = Protocol.of(name, **self.sizes[name])
        specs = {"evaluation": {"text": "t", "windows": windows, "protocol": protocol.as_dict()}}
        built = tokens.build("evaluation", specs, {"t": self.articles}, self.tokenizer, 1)
        sums = protocol_effects.losses(self.model, built, 2)
        return math.exp(sums.sum() / built.scored.sum()), int(built.scored.sum())

    def nll(self, ids, first=1):
        """NLL of ids[first:] each after all before it, from the model's own logits."""
        with torch.no_grad():
            logits = self.model(torch.tensor([ids])).logits[0, :-1].float()
        return torch.nn.functional.cross_entropy(logits, torch.tensor(ids[1:]), reduction="none")[first - 1 :]


@pytest.fixture(scope="module", params=["tiny", pytest.param("default", marks=pytest.mark.slow)])
def case(request):
    if request.param == "tiny":
        texts = tiny.plain_text(articles=3, words=60)
        articles = [Article(str(place), text) for place, text in enumerate(texts)]
        return Case(tiny.build("llama"), tiny.tokenizer(), articles, SMALL)
    return _default_model(request.getfixturevalue("tmp_path_factory").mktemp("base"))


def _default_model(folder):
    from pathlib import Path

    import yaml

    from hemorrhage import cache
    from hemorrhage.architecture import models
    from hemorrhage.corpus import texts as sources
    from hemorrhage.sources import fetch

    config = yaml.safe_load((Path(__file__).resolve().parents[2] / "config.yaml").read_text(encoding="utf8"))
    source, text = config["models"]["smollm2-135m"], config["texts"]["wikipedia"]
    try:
        weights = fetch.fetch(source["source"], source["sha256"], cache.downloads())
        articles = sources.articles(fetch.fetch(text["source"], text["sha256"], cache.downloads()), text["format"])
    except (OSError, ValueError) as error:
        pytest.skip(f"the default model cannot be fetched: {error}")
    models.prepare(weights, folder / "base", source=source["source"], sha256=source["sha256"])
    model = models.load(folder / "base", "float32", "cpu")
    tokenizer = models.load_tokenizer(folder / "base")
    kept, size = [], 0
    for article in articles:
        kept.append(article)
        size += len(tokenizer(article.text, add_special_tokens=False, verbose=False)["input_ids"])
        if size > 5000:
            break
    return Case(model, tokenizer, kept, {name: {} for name in SMALL})


def test_gptq_is_the_loop_of_its_code(case):
    size = Protocol.of("gptq-2048", **case.sizes["gptq-2048"]).window
    count = len(case.ids) // size
    total = sum(float(case.nll(case.ids[i * size : (i + 1) * size]).mean()) * size for i in range(count))
    found, _ = case.ours("gptq-2048")
    assert found == pytest.approx(math.exp(total / (count * size)), rel=1e-5)


def test_llamacpp_scores_the_second_half_of_each_window(case):
    size = Protocol.of("llamacpp-half-512", **case.sizes["llamacpp-half-512"]).window
    total, count = 0.0, 0
    for start in range(0, len(case.ids) // size * size, size):
        losses = case.nll(case.ids[start : start + size])
        # The tool sums over positions first … n_ctx - 2 whose next token it knows, first = n_ctx / 2.
        used = [float(losses[position]) for position in range(size // 2, size - 1)]
        total, count = total + sum(used), count + size - size // 2 - 1
    found, scored = case.ours("llamacpp-half-512")
    assert scored == count and found == pytest.approx(math.exp(total / count), rel=1e-5)


def test_the_strided_loop_of_transformers(case):
    protocol = Protocol.of("hf-strided", **case.sizes["hf-strided"])
    # The loop's last, shorter window is dropped by the protocol: cut the text so that there is none.
    ids = case.ids
    ids = ids[: protocol.window + (len(ids) - protocol.window) // protocol.stride * protocol.stride]
    losses, previous = [], 0
    for begin in range(0, len(ids), protocol.stride):
        end = min(begin + protocol.window, len(ids))
        target = torch.tensor(ids[begin:end])
        target[: -(end - previous)] = -100
        with torch.no_grad():
            logits = case.model(torch.tensor([ids[begin:end]])).logits[0, :-1].float()
        loss = torch.nn.functional.cross_entropy(logits, target[1:], ignore_index=-100, reduction="none")
        losses.append(loss[target[1:] != -100])
        previous = end
        if end == len(ids):
            break
    found, scored = case.ours("hf-strided")
    assert scored == sum(map(len, losses))
    assert found == pytest.approx(math.exp(float(torch.cat(losses).mean())), rel=1e-5)


@pytest.mark.parametrize("cut", [0, 17])
def test_rolling_equals_lm_eval_itself(case, cut, monkeypatch):
    lm_eval = pytest.importorskip("lm_eval.models.huggingface")
    from lm_eval.api.instance import Instance

    if cut:
        last = case.articles[-1]
        monkeypatch.setattr(case, "articles", [*case.articles[:-1], Article(last.title, last.text[:-cut])])
    window = Protocol.of("lm-eval-rolling", **case.sizes["lm-eval-rolling"]).window
    harness = lm_eval.HFLM(
        pretrained=case.model,
        tokenizer=case.tokenizer,
        max_length=window,
        batch_size=1,
        device="cpu",
        add_bos_token=False,
    )
    request = Instance("loglikelihood_rolling", {}, (case.text,), 0)
    theirs = -harness.loglikelihood_rolling([request], disable_tqdm=True)[0]
    found, scored = case.ours("lm-eval-rolling")
    assert scored == len(case.ids)
    assert found == pytest.approx(math.exp(theirs / len(case.ids)), rel=1e-4)
    assert np.isfinite(found)
