"""Summary and report: complete, self-contained, the same bytes every time."""

import math
import re
from html.parser import HTMLParser
from pathlib import Path

import example_study
import pandas as pd
import pytest

from hemorrhage import plugins
from hemorrhage.analysis import statements, tables
from hemorrhage.decoding import side_by_side
from hemorrhage.reporting import findings, report, sections, summary

TEMPLATE = Path(__file__).resolve().parents[2] / "rules" / "report" / "report.html.j2"
NOTES = ["The baseline is a dequantised Q4_1 file & its weights lie on a 4-bit grid."]
VOID = {"meta", "br", "img", "link", "hr", "input"}


class Balance(HTMLParser):
    def __init__(self):
        super().__init__()
        self.open, self.ids = [], []

    def handle_starttag(self, tag, attrs):
        self.ids += [value for key, value in attrs if key == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.ids += [value for key, value in attrs if key == "id"]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def figures(example, tmp_path_factory):
    folder = tmp_path_factory.mktemp("figures")
    wanted = {"overview": {"name": "overview"}, "family_pruning": {"name": "family", "family": "pruning"}}
    for stem, figure in wanted.items():
        plugins.get("figures", figure["name"]).module.draw(
            example, example["study"], example_study.SETTINGS, figure, folder / f"{stem}.svg", folder / f"{stem}.png"
        )
    return {stem: str(folder / f"{stem}.svg") for stem in wanted}


def _render(example, figures, out):
    report.write(
        example,
        figures,
        example["study"],
        example_study.SETTINGS,
        NOTES,
        str(TEMPLATE),
        str(out),
        {"wanda": "Removes what matters least."},
    )
    return out.read_text(encoding="utf8")


def test_the_page_is_well_formed_and_needs_nothing_from_outside(example, figures, tmp_path):
    page = _render(example, figures, tmp_path / "report.html")
    reader = Balance()
    reader.feed(page)
    assert not reader.open and len(reader.ids) == len(set(reader.ids))
    assert not re.search(r'(?:src|href)="(?!#)', page.replace("xlink:href", "href"))
    assert "@import" not in page and "url(http" not in page and "<script" not in page
    for part in ("overview", "pruning", "mitigations", "statements", "decoding", "methods"):
        assert f'id="{part}"' in page
    assert "Q4_1 file &amp; its weights" in page and "Removes what matters least." in page


def test_the_page_has_the_same_bytes_every_time(example, figures, tmp_path):
    assert _render(example, figures, tmp_path / "a.html") == _render(
        example, dict(reversed(figures.items())), tmp_path / "b.html"
    )


def test_figures_take_the_colours_of_the_theme_and_keep_their_ids_apart(figures):
    one = report.inline(Path(figures["overview"]).read_text(encoding="utf8"), "one")
    assert one.startswith("<svg") and "var(--ink)" in one and "#1f2430" not in one
    assert all(name.startswith("one-") for name in re.findall(r'\bid="([^"]+)"', one))
    assert all(name.startswith("one-") for name in re.findall(r'href="#([^"]+)"', one))


def test_findings_name_survivors_mitigations_control_and_hidden_damage(example):
    read = [tables.read(example[name]) for name in ("metrics", "thresholds", "mitigations")]
    judged = statements.read(example["statements"])
    text = " ".join(findings.sentences(*read, example["study"], example_study.CRITERIA, judged))
    assert "statements of paper and field that this study can test" in text
    assert "gradient aware lasts to 0.35 [0.33, 0.37]" in text
    assert "helps against magnitude" in text and "KL of exactly 0" in text
    assert "perplexity alone would not see this damage" in text
    assert "drop blocks does not last to 1, the mildest level tested" in text


@pytest.mark.parametrize(
    ("shift", "end"),
    [((0, 0, 0), "does not move."), ((0, -1, 1), "moves by 0 [−1, 1]."), ((1, -math.inf, 2), "moves by +1 [−∞, 2].")],
)
def test_a_threshold_stands_still_only_if_no_level_between_is_open(example, shift, end):
    table = tables.read(example["mitigations"])
    rows = table[(table.mitigation == "dynamic_activations") & (table.criterion == "kl_0.1")].iloc[:1]
    row = rows.assign(**dict(zip(("shift", "shift_low", "shift_high"), shift, strict=True)), shift_state="levels")
    assert findings._mitigation(row, example["study"], example_study.CRITERIA).endswith(f"KL 0.1 nat {end}")


def test_the_summary_holds_findings_thresholds_and_notes(example, tmp_path):
    summary.write(example, example["study"], example_study.SETTINGS, NOTES, str(tmp_path / "summary.md"))
    text = (tmp_path / "summary.md").read_text(encoding="utf8")
    assert text.startswith("# Summary") and NOTES[0] in text
    assert re.search(r"\| wanda \| sparsity, share of weights \| 0\.13 \[0\.12, 0\.13\]", text)
    widths = {line.count("|") for line in text.split("## Pruning")[1].split("\n\n")[1].splitlines()}
    assert len(widths) == 1


AGREEMENT = {"one": {"a": 0.2, "b": 0.6}, "two": {"a": 0.7, "b": 0.3}}  # of the weights' texts, by model and variant
GRID = {"recipes": {}, "axes": {}, "repairs": {}}


def _texts(models=("one", "two")):
    """texts.tsv of two prompts and metrics.tsv of variants that are faithful in another order on the other model."""
    rows = [
        [model, variant, decoder, prompt, "", 3, "drift" if prompt else "loop", "Once", "upon", f"{model} says", "x"]
        for model in models
        for decoder in ("top_p", "greedy")
        for variant in ("a", "b")
        for prompt in (0, 1)
    ]
    metrics = [
        [model, variant, f"text.{decoder}", "weight_effect.token_agreement", value, 0.0, 1.0]
        for model in models
        for variant, value in {"identity": 1.0, **AGREEMENT[model]}.items()
        for decoder in ("greedy", "top_p")
    ]
    columns = ["model", "variant", "probe", "metric", "value", "low", "high"]
    return pd.DataFrame(rows, columns=side_by_side.TEXTS), pd.DataFrame(metrics, columns=columns)


def test_texts_stand_by_model_and_decoder_with_the_most_faithful_variant_first():
    found = sections.texts(*_texts(), GRID)
    assert [(row["model"], row["decoder"], row["variant"]) for row in found] == [
        *(("one", decoder, variant) for decoder in ("greedy", "top p") for variant in ("b", "a")),
        *(("two", decoder, variant) for decoder in ("greedy", "top p") for variant in ("a", "b")),
    ]
    assert all(row["reference"] == f"{row['model']} says" for row in found)
    assert {row["counts"] for row in found} == {"1 × drift, 1 × loop"}
    assert {row["model"] for row in sections.texts(*_texts(["one"]), GRID)} == {""}


def test_effects_on_text_are_told_by_model_where_there_are_several():
    table = sections.decoding(_texts()[1], GRID)
    assert table.head[:3] == ["model", "variant", "decoder"] and table.text == 3
    assert [row[:3] for row in table.rows[2:6]] == [
        ["one", variant, decoder] for variant in ("b", "a") for decoder in ("greedy", "top p")
    ]
    assert [row[0] for row in table.rows] == ["one"] * 6 + ["two"] * 6
    assert sections.decoding(_texts(["one"])[1], GRID).head[:2] == ["variant", "decoder"]


def test_the_page_names_the_model_of_texts_side_by_side(example, figures, tmp_path):
    texts, metrics = _texts()
    tables.write(texts, tmp_path / "texts.tsv")
    tables.write(pd.concat([tables.read(example["metrics"]), metrics]), tmp_path / "metrics.tsv")
    more = {"texts": tmp_path / "texts.tsv", "metrics": tmp_path / "metrics.tsv"}
    page = _render({**example, **more}, figures, tmp_path / "report.html")
    assert "<h3>one: b, greedy " in page and "<h3>two: a, greedy " in page
    assert "All prompts and seeds: 1 × drift, 1 × loop." in page
