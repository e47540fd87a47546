"""The arithmetic facts of the published comparison of decoders (D19 of the list of defects beside it)."""

from pathlib import Path

import pytest

from hemorrhage import plugins
from hemorrhage.decoding import published_decoding

TABLE = Path(plugins.PACKAGE).parents[1] / "resources" / "published" / "paper_decoding.tsv"


@pytest.fixture(scope="module")
def table():
    return published_decoding.read(TABLE)


def test_it_is_whole(table):
    assert len(table) == 324
    assert table.groupby(["model", "dataset"]).decoder.nunique().unique().tolist() == [12]
    assert (table.model.nunique(), table.dataset.nunique()) == (9, 3)


@pytest.mark.parametrize(("dataset", "models"), [("gsm8k", 7), ("mbpp", 5)])
def test_greedy_is_lowest_in_many_models_but_not_in_all(table, dataset, models):
    assert published_decoding.greedy_is_lowest(table, dataset) == models


def test_some_scores_are_no_share_of_the_items(table):
    assert len(published_decoding.impossible(table, "gsm8k")) == 7
    rows = published_decoding.impossible(table, "mbpp")
    assert rows[["decoder", "score"]].to_numpy().tolist() == [["fsd_d", 49.3]]
    assert rows.model.str.startswith("Yi-1.5").all()


def test_the_range_over_decoders_is_largest_for_code_and_smallest_for_open_text(table):
    median = published_decoding.relative_range(table).median()
    assert median["mbpp"] > median["gsm8k"] > median["wikinews"] > 0
