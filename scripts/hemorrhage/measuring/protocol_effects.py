"""How much one model's perplexity moves with the protocol alone: the same weights, cut and scored in several ways.

Every protocol scores about as many tokens as the evaluation windows hold. Contiguous protocols start at the same
place of the same text; windows of single articles see the starts of articles, which is other text.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from hemorrhage import files
from hemorrhage.analysis import tables
from hemorrhage.analysis.statistics import exponential, index_matrix, mean_interval
from hemorrhage.architecture import models
from hemorrhage.architecture.head import Head, hidden_states
from hemorrhage.corpus import tokens
from hemorrhage.corpus.texts import Article
from hemorrhage.measuring.divergence import LOGITS_AT_ONCE

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from hemorrhage.corpus.tokens import TokenSet

SET = "evaluation"
COLUMNS = [
    "model",
    "name",
    "protocol",
    "window",
    "stride",
    "scored",
    "bos",
    "joining",
    "prefix",
    "tail",
    "value",
    "se",
    "low",
    "high",
    "n",
    "blocks",
]


def measure(
    base: str | os.PathLike,
    plans: Mapping[str, Mapping[str, Any]],
    articles: Sequence[Article],
    model: str,
    seed: int,
    device: str,
    tokens_at_once: int,
    out: str | os.PathLike,
) -> None:
    """Write protocols.json of one model.

    Args:
        base: the dense checkpoint.
        plans: name -> text, windows, protocol (settings), as ``TokenPlan.protocol_plans`` gives them.
        articles: the evaluation text.
        model: name of the model.
        seed: of the choice of articles.
        device: where to run.
        tokens_at_once: tokens in one forward pass, at least one window.
        out: where to write.

    Raises:
        ValueError: a text too short for a protocol.
    """
    tokenizer, loaded, rows = models.load_tokenizer(base), None, []
    for name, plan in plans.items():
        built = tokens.build(SET, {SET: plan}, {plan["text"]: articles}, tokenizer, seed)
        if loaded is None:
            loaded = models.load(base, str(built.meta["protocol"]["dtype"]), device)
        sums = losses(loaded, built, max(1, tokens_at_once // built.tokens.shape[1]))
        rows.append(_row(name, built, sums, model))
    files.write_json(out, {"model": model, "text": next(iter(plans.values()))["text"], "protocols": rows})


@torch.no_grad()
def losses(model: PreTrainedModel, windows: TokenSet, batch: int) -> np.ndarray:
    """Return the sum [B] of the negative log-likelihoods of each window's scored tokens, in nats."""
    head = Head.of(model)
    rows = max(1, LOGITS_AT_ONCE // head.weight.shape[0])
    sums = np.zeros(len(windows.tokens))
    for start in range(0, len(sums), batch):
        piece = slice(start, start + batch)
        ids = torch.as_tensor(windows.tokens[piece], dtype=torch.long, device=model.device)
        hidden = hidden_states(model, ids)
        for place, scored in enumerate(torch.as_tensor(windows.scored[piece][:, 1:], device=model.device)):
            inputs, targets = hidden[place, :-1][scored], ids[place, 1:][scored]
            for h, target in zip(inputs.split(rows), targets.split(rows), strict=True):
                nll = torch.nn.functional.cross_entropy(head(h), target, reduction="none")
                sums[start + place] += float(nll.sum(dtype=torch.float64))
    return sums


def collect(records: Sequence[str], out: str) -> None:
    """Write protocols.tsv, a row per model and protocol, from every model's protocols.json."""
    rows: list[dict[str, Any]] = []
    for record in map(files.read_json, sorted(records)):
        rows.extend({"model": record["model"], **row} for row in record["protocols"])
    tables.write(pd.DataFrame(rows, columns=COLUMNS), out)


def _row(name: str, built: TokenSet, sums: np.ndarray, model: str) -> dict[str, Any]:
    counts = built.scored.sum(1)
    nll = mean_interval(sums, counts, index_matrix(model, SET, len(sums)), (0.0, float("inf")))
    found = exponential(nll)
    settings = built.protocol
    return {
        "name": name,
        "protocol": settings.slug,
        "window": settings.window,
        "stride": settings.stride,
        "scored": settings.scored,
        "bos": settings.bos,
        "joining": settings.joining,
        "prefix": settings.prefix,
        "tail": settings.tail,
        "value": found.value,
        "se": found.se,
        "low": found.low,
        "high": found.high,
        "n": found.n,
        "blocks": found.blocks,
    }
