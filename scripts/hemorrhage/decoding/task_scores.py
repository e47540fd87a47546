"""Task scores by decoder as the tables hold them, and their range over the decoders."""

from __future__ import annotations

import pandas as pd

from hemorrhage.decoding.published_decoding import relative_range

PREFIX = "decoded_tasks."
SCORE = "score."


def rows(metrics: pd.DataFrame) -> pd.DataFrame:
    """Return the scores, each variant once, with columns decoder and dataset (the task)."""
    wanted = metrics.probe.str.startswith(PREFIX) & metrics.metric.str.startswith(SCORE)
    found = metrics[wanted].drop_duplicates(["model", "variant", "probe", "metric"]).copy()
    found["decoder"] = found.probe.str.removeprefix(PREFIX)
    found["dataset"] = found.metric.str.removeprefix(SCORE)
    return found


def ranges(scores: pd.DataFrame) -> pd.DataFrame:
    """Return (best − worst) / worst over the decoders: (model, variant) as rows, tasks as columns.

    nan where the worst score is 0, or where a task was answered by one decoder only.
    """
    several = scores.groupby(["model", "variant", "dataset"]).decoder.transform("nunique") > 1
    table = scores[several]
    keys = pd.Series(list(zip(table.model, table.variant, strict=True)), index=table.index, dtype=object)
    return relative_range(table.assign(model=keys, score=table.value))
