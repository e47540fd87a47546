"""How fast a variant runs on this machine: tokens a second of reading and of generating.

Times differ from run to run and from machine to machine, so they are no results: they lie with the benchmarks, and no
table, figure or threshold of the study reads them.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor
from transformers import PreTrainedModel

from hemorrhage import files
from hemorrhage.analysis import tables
from hemorrhage.planning.variants import REFERENCE

COLUMNS = [
    "model",
    "variant",
    "parameters",
    "dense_bytes",
    "bytes_on_disk",
    "prefill",
    "generation",
    "prefill_ratio",
    "generation_ratio",
    "threads",
    "device",
]


@torch.no_grad()
def measure(model: PreTrainedModel, window: Tensor, prompt: int, new_tokens: int, repeats: int) -> dict[str, float]:
    """Return tokens a second, each the median of ``repeats`` runs after one that is not counted.

    Args:
        model: the variant, on its device.
        window: [L] int64, one evaluation window; reading it all is "prefill".
        prompt: the first tokens of it that generation starts from.
        new_tokens: how many are generated, greedily, with the cache; tokens over the time of all of them.
        repeats: how often each is timed.
    """
    ids = window[None].to(model.device)
    start = ids[:, :prompt]

    def read() -> None:
        model(ids, use_cache=False)

    generate: Any = model.generate

    def write() -> None:
        generate(
            start,
            attention_mask=torch.ones_like(start),
            do_sample=False,
            min_new_tokens=new_tokens,
            max_new_tokens=new_tokens,
            pad_token_id=0,
        )

    return {
        "prefill": ids.shape[1] / _median(read, repeats, model.device),
        "generation": new_tokens / _median(write, repeats, model.device),
    }


def collect(records: Iterable[str], out: str) -> None:
    """Write speed.tsv: a row per variant, with tokens a second over those of the reference of the same model.

    Raises ValueError if records of one model come from different devices or numbers of threads.
    """
    rows = [files.read_json(path) for path in records]
    references = {row["model"]: row for row in rows if row["variant"] == REFERENCE}
    for row in rows:
        reference = references[row["model"]]
        if any(row[key] != reference[key] for key in ("device", "threads")):
            raise ValueError(
                f"{row['variant']} of {row['model']} ran with other threads or on another device than the "
                "reference; delete results/benchmarks/speed and measure them together."
            )
        row |= {f"{name}_ratio": row[name] / reference[name] for name in ("prefill", "generation")}
    tables.write(pd.DataFrame(rows, columns=COLUMNS).astype({"bytes_on_disk": "Int64"}), out)


def write(path: str | Path, found: Mapping[str, float], facts: Mapping[str, Any]) -> None:
    """Write the record of one variant; ``facts`` are the other columns of the table."""
    files.write_json(path, {**facts, **found})


def _median(run: Callable[[], None], repeats: int, device: torch.device) -> float:
    """The median seconds of a run."""
    seconds = []
    for _ in range(repeats + 1):
        begun = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - begun)
    return statistics.median(seconds[1:])
