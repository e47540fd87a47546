"""llama.cpp itself on the shipped GGUF file: its perplexity over second halves against `llamacpp-half-512` of ours."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from hemorrhage import cache
from hemorrhage.architecture import models
from hemorrhage.corpus import texts as sources
from hemorrhage.corpus import tokens
from hemorrhage.corpus.protocol import Protocol
from hemorrhage.measuring import protocol_effects
from hemorrhage.sources import fetch

pytestmark = pytest.mark.peer
WINDOWS = 4


@pytest.fixture(scope="module")
def fetched():
    """The GGUF file and the articles of the default study."""
    config = yaml.safe_load((Path(__file__).resolve().parents[2] / "config.yaml").read_text(encoding="utf8"))
    source, text = config["models"]["smollm2-135m"], config["texts"]["wikipedia"]
    try:
        weights = fetch.fetch(source["source"], source["sha256"], cache.downloads())
        path = fetch.fetch(text["source"], text["sha256"], cache.downloads())
    except (OSError, ValueError) as error:
        pytest.skip(f"the default model cannot be fetched: {error}")
    return weights, sources.articles(path, text["format"])


def logits_of(peer, ids):
    """Logits [n, V] of llama.cpp for one window, from an empty cache."""
    lib, ffi = peer._lib, peer._ffi
    peer._clear_context_state()
    batch = lib.llama_batch_init(len(ids), 0, 1)
    batch.n_tokens = len(ids)
    for place, token in enumerate(ids):
        batch.token[place], batch.pos[place], batch.n_seq_id[place] = token, place, 1
        batch.seq_id[place][0], batch.logits[place] = 0, 1
    assert lib.llama_decode(peer._ctx, batch) == 0
    size = peer.n_vocab() if callable(peer.n_vocab) else peer.n_vocab
    buffer = ffi.buffer(lib.llama_get_logits(peer._ctx), 4 * len(ids) * size)
    found = torch.from_numpy(np.frombuffer(buffer, dtype=np.float32).reshape(len(ids), size).copy())
    lib.llama_batch_free(batch)
    return found


def test_perplexity_over_second_halves_is_llamacpps(fetched, tmp_path):
    llama = pytest.importorskip("llama_cpp_py_sync")
    weights, articles = fetched
    models.prepare(weights, tmp_path / "base", source="peer")
    tokenizer = models.load_tokenizer(tmp_path / "base")
    protocol = Protocol.of("llamacpp-half-512")
    specs = {"evaluation": {"text": "t", "windows": WINDOWS, "protocol": protocol.as_dict()}}
    built = tokens.build("evaluation", specs, {"t": articles}, tokenizer, 1)
    peer = llama.Llama(str(weights), n_ctx=512, n_batch=512, n_threads=1)
    start = "\n\n".join(article.text for article in articles)[:20000]
    assert peer.tokenize(start, add_special=False)[:512] == built.tokens[0].tolist()
    sums = protocol_effects.losses(models.load(tmp_path / "base", "float32", "cpu"), built, 1)
    theirs = []
    for ids in built.tokens.tolist():
        scores = logits_of(peer, ids)[:-1].log_softmax(-1)
        theirs.append(-scores.gather(1, torch.tensor(ids)[1:, None])[256:, 0].sum().item())
    ours, peers = (math.exp(sum(side) / (255 * WINDOWS)) for side in (sums.tolist(), theirs))
    # llama.cpp rounds activations to 8 bits in front of 4-bit weights; that is all that may differ.
    assert ours == pytest.approx(peers, rel=0.01)
