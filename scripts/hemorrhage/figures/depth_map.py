"""Depth map: damage by start block and length of a removed or repeated range, one heat map each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.colors import Normalize

from hemorrhage.analysis import tables
from hemorrhage.reporting import heatmaps, plotting

PROBE = "depth_map"
TITLES = {"removal": "blocks removed", "repetition": "blocks repeated"}
CAPTION = (
    "Each cell is the KL of the uncut model's predictions against those of the model with one range of blocks removed, "
    "or running twice: the column is the first block of the range, the row its length. Colours are logarithmic and the "
    "same on both sides."
)


def draw(
    paths: Mapping[str, str],
    grid: dict[str, Any],
    settings: Mapping[str, Any],
    figure: Mapping[str, str],
    svg: str,
    png: str,
) -> None:
    """Write the maps: a row per model, removal on the left, repetition on the right. Arguments: see the package."""
    metrics = tables.read(paths["metrics"])
    shown = maps(metrics)
    if not shown:
        plotting.message(svg, png, "No model was measured with the probe “depth_map”.")
        return
    tallest = max(len(frame) for frames in shown.values() for frame in frames.values())
    with plotting.figure(len(shown), len(TITLES), (10.5, (0.42 * tallest + 1.9) * len(shown))) as (drawn, axes):
        for row, (model, frames) in zip(axes, shown.items(), strict=True):
            every = np.concatenate([frame.to_numpy(dtype=float).ravel() for frame in frames.values()])
            colours = heatmaps.scale(every, logarithmic=True)
            meshes = [
                _panel(axis, frames[kind], colours, f"{model}: {title}")
                for axis, (kind, title) in zip(row, TITLES.items(), strict=True)
                if kind in frames
            ]
            for axis, kind in zip(row, TITLES, strict=True):
                axis.set_visible(kind in frames)
            drawn.colorbar(meshes[0], ax=list(row), location="bottom", aspect=60, fraction=0.08, label="KL, nats")
        plotting.save(drawn, svg, png)


def maps(metrics: pd.DataFrame) -> dict[str, dict[str, pd.DataFrame]]:
    """Return per model and kind the KL of every range: a row per length, a column per start block."""
    rows = metrics[(metrics.probe == PROBE) & metrics.metric.str.contains("_kl.", regex=False)]
    rows = rows.drop_duplicates(["model", "variant", "metric"])
    result: dict[str, dict[str, pd.DataFrame]] = {}
    for model, group in tables.groups(rows, "model"):
        first = group[group.variant == group.variant.iloc[0]]
        for kind in TITLES:
            cells = first[first.metric.str.startswith(f"{kind}_kl.")]
            if len(cells):
                places = [tuple(map(int, metric.split(".")[1:])) for metric in cells.metric]
                frame = cells.assign(start=[start for start, _ in places], length=[length for _, length in places])
                wide = frame.pivot(index="length", columns="start", values="value")
                result.setdefault(model, {})[kind] = wide.sort_index()
    return result


def _panel(axes: Axes, frame: pd.DataFrame, colours: Normalize, title: str) -> QuadMesh:
    mesh = heatmaps.panel(axes, frame, colours)
    axes.set_title(title)
    axes.set_xlabel("first block of the range")
    axes.set_ylabel("blocks in the range")
    axes.set_yticks(np.arange(len(frame)) + 0.5, [str(length) for length in frame.index])
    return mesh
