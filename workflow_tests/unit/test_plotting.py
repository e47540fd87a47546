"""Figures: each is drawn from the tables, with the same bytes every time, also from tables with little in them."""

import math
from xml.etree import ElementTree

import example_study
import numpy as np
import pandas as pd
import pytest

from hemorrhage import plugins
from hemorrhage.analysis import tables
from hemorrhage.analysis.curves import label
from hemorrhage.reporting import plotting, wording

FIGURES = {
    "overview": {"name": "overview"},
    "mitigations": {"name": "mitigations"},
    "decoding": {"name": "decoding"},
    "family_pruning": {"name": "family", "family": "pruning"},
    "family_quantization": {"name": "family", "family": "quantization"},
}


def _draw(stem, paths, folder):
    figure = FIGURES[stem]
    out = folder / f"{stem}.svg", folder / f"{stem}.png"
    plugins.get("figures", figure["name"]).module.draw(paths, paths["study"], example_study.SETTINGS, figure, *out)
    return out


@pytest.mark.parametrize("stem", FIGURES)
def test_a_figure_is_valid_and_has_the_same_bytes_every_time(stem, example, tmp_path):
    first = [path.read_bytes() for path in _draw(stem, example, tmp_path / "a")]
    again = [path.read_bytes() for path in _draw(stem, example, tmp_path / "b")]
    assert first == again
    ElementTree.fromstring(first[0])
    assert len(first[0]) > 20_000 and first[1].startswith(b"\x89PNG")


def test_infinite_damage_can_be_drawn(example, tmp_path):
    metrics = tables.read(example["metrics"])
    damaged = metrics.metric.isin(["kl", "delta_nll", "perplexity_ratio"])
    broken = (metrics.variant == "magnitude_sparsity~0.5") & damaged
    metrics.loc[broken, ["value", "se", "low", "high"]] = [math.inf, math.nan, math.nan, math.nan]
    tables.write(metrics, tmp_path / "metrics.tsv")
    for stem in ("overview", "family_pruning", "mitigations"):
        svg, _ = _draw(stem, {**example, "metrics": tmp_path / "metrics.tsv"}, tmp_path)
        assert svg.stat().st_size > 20_000


@pytest.mark.parametrize("stem", FIGURES)
def test_a_study_of_the_reference_alone_gets_a_figure_that_says_so(stem, example, tmp_path):
    paths = {**example}
    for name in ("metrics", "thresholds", "mitigations"):
        frame = tables.read(example[name])
        if name == "metrics":
            frame = frame[(frame.variant == "identity") & (frame.probe == "fidelity")]
        else:
            frame = frame.iloc[:0]
        tables.write(frame, tmp_path / f"{name}.tsv")
        paths[name] = tmp_path / f"{name}.tsv"
    svg, png = _draw(stem, paths, tmp_path)
    assert svg.exists() and png.exists()


def test_names_for_people():
    study = {"repairs": {"drop_blocks": [], "magnitude": [], "rtn": []}}
    assert label("drop_blocks_count~*", study) == "drop blocks"
    assert (
        label("magnitude_sparsity~0.5_n~2_m~4+rtn_bits~*_group~64", study)
        == "magnitude · sparsity 0.5 · n 2 · m 4 + rtn · group 64"
    )
    assert label("identity", study) == "identity"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (0.012345, "0.0123"),
        (12345.6, "12346"),
        (math.inf, "∞"),
        (-0.5, "−0.500"),
        (3.1e-5, "3.1×10⁻⁵"),
        (math.nan, "–"),
    ],
)
def test_numbers_for_people(value, text):
    assert wording.number(value) == text


@pytest.mark.parametrize(
    ("ratio", "word"),
    [
        (0.9, "none"),
        (1.01, "none"),
        (1.04, "trace"),
        (1.6, "moderate"),
        (9.9, "severe"),
        (11, "fatal"),
        (math.inf, "fatal"),
        (math.nan, "fatal"),
    ],
)
def test_severity_words(ratio, word):
    assert wording.severity(ratio, example_study.SEVERITY) == word


def test_the_criterion_in_the_middle_ranks():
    assert wording.primary(example_study.CRITERIA) == "kl_0.1"


def test_what_cannot_be_drawn_to_scale_is_capped():
    values, beyond = plotting.capped(np.array([1.0, math.inf, math.nan, 50.0]), 10.0)
    assert values.tolist() == [1, 10, 10, 10] and beyond.tolist() == [False, True, True, True]


def _curves(folder):
    from hemorrhage.decoding import side_by_side

    rows = [
        [example_study.MODEL, variant, decoder, "weight_effect", place, 0.9**place, 0.8**place, 0.95**place]
        for variant in ("identity", "rtn_bits~4", "rtn_bits~3")
        for decoder in ("greedy", "top_p", "beam")
        for place in range(9)
    ]
    tables.write(pd.DataFrame(rows, columns=side_by_side.DIVERGENCE), folder / "divergence.tsv")
    return folder / "divergence.tsv"


def test_figures_of_decoding_are_drawn_with_the_same_bytes_every_time(example, tmp_path):
    paths = {
        **example,
        "divergence": _curves(tmp_path),
        "paper_decoding": plugins.PACKAGE.parents[1] / "resources" / "published" / "paper_decoding.tsv",
    }
    metrics = tables.read(example["metrics"])
    text = metrics[metrics.metric == "weight_effect.token_agreement"]
    more = [text.assign(metric=name, value=1 + text.value) for name in ("amplification", "amplification_common")]
    scores = [
        text.assign(
            probe=text.probe.str.replace("text.", "decoded_tasks.", regex=False), metric=f"score.{task}", blocks=16
        )
        for task in ("arithmetic", "facts")
    ]
    tables.write(pd.concat([metrics, *more, *scores]), tmp_path / "metrics.tsv")
    paths["metrics"] = tmp_path / "metrics.tsv"
    for name in ("divergence", "amplification", "published_decoding"):
        for turn in ("a", "b"):
            plugins.get("figures", name).module.draw(
                paths,
                paths["study"],
                example_study.SETTINGS,
                {"name": name},
                tmp_path / f"{name}{turn}.svg",
                tmp_path / f"{name}{turn}.png",
            )
        first, second = ((tmp_path / f"{name}{turn}.svg").read_bytes() for turn in ("a", "b"))
        assert first == second and len(first) > 10_000
    assert b"this study: score" in (tmp_path / "published_decodinga.svg").read_bytes()


def test_the_published_decoders_stand_alone_where_a_study_has_no_tasks(example, tmp_path):
    paths = {
        **example,
        "paper_decoding": plugins.PACKAGE.parents[1] / "resources" / "published" / "paper_decoding.tsv",
    }
    plugins.get("figures", "published_decoding").module.draw(
        paths, paths["study"], example_study.SETTINGS, {}, tmp_path / "a.svg", tmp_path / "a.png"
    )
    assert b"this study: score" not in (tmp_path / "a.svg").read_bytes()


def _drawn_scores(example, tmp_path, scores):
    """The figure of the published decoders with task scores {(variant, decoder): value}, as the text of its SVG."""
    metrics = tables.read(example["metrics"])
    row = metrics[metrics.metric == "weight_effect.token_agreement"].iloc[0]
    rows = [
        {**row, "variant": variant, "probe": f"decoded_tasks.{decoder}", "metric": "score.facts", "value": value}
        for (variant, decoder), value in scores.items()
    ]
    tables.write(pd.concat([metrics, pd.DataFrame(rows)]), tmp_path / "metrics.tsv")
    published = plugins.PACKAGE.parents[1] / "resources" / "published" / "paper_decoding.tsv"
    paths = {**example, "metrics": tmp_path / "metrics.tsv", "paper_decoding": published}
    plugins.get("figures", "published_decoding").module.draw(
        paths, paths["study"], example_study.SETTINGS, {}, tmp_path / "a.svg", tmp_path / "a.png"
    )
    return (tmp_path / "a.svg").read_text(encoding="utf8")


def test_a_variant_that_one_decoder_answered_has_no_range_beside_its_name(example, tmp_path):
    greedy = {("identity", "greedy"): 0.5, ("rtn_bits~3", "greedy"): 0.0}
    drawn = _drawn_scores(example, tmp_path, greedy)
    assert "this study: score" in drawn and "range 0 %" not in drawn and "the worst is 0" not in drawn
    drawn = _drawn_scores(example, tmp_path, greedy | {("identity", "top_p"): 0.75, ("rtn_bits~4", "greedy"): 0.2})
    assert "range 50 %" in drawn and "the worst is 0" not in drawn
    drawn = _drawn_scores(example, tmp_path, greedy | {("rtn_bits~3", "top_p"): 0.75})
    assert "the worst is 0" in drawn
