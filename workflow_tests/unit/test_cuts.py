"""Shares of weights that cuts took, from the records of what was achieved."""

import pytest

from hemorrhage import files
from hemorrhage.analysis import cuts


@pytest.mark.parametrize(
    ("achieved", "share"),
    [
        ([], 0.0),
        ([{"method": "wanda", "zeros": 0.5}], 0.0),
        ([{"method": "drop_blocks", "dropped": [1, 2], "share": 0.25}], 0.25),
        ([{"method": "slice_residual", "ratio": 0.5, "weights_before": 100, "weights_after": 70}], 0.3),
        ([{"method": "flap", "ratio": 0.0, "removed": {}}], 0.0),
        (
            [
                {"method": "drop_blocks", "share": 0.5},
                {"method": "flap", "weights_before": 50, "weights_after": 40},
                {"method": "finetune", "steps": 3},
            ],
            0.6,
        ),
    ],
    ids=["nothing", "zeros stay", "blocks", "by weights, not by width", "no cut", "one after the other"],
)
def test_the_share_that_is_gone_is_one_of_weights(achieved, share):
    assert cuts.removed(achieved) == pytest.approx(share)


def test_every_variant_of_every_model_has_a_row(tmp_path):
    paths = []
    for model, share in (("a", 0.25), ("b", 0.5)):
        path = tmp_path / "models" / model / "variants" / "drop_blocks_blocks~2" / "modification.json"
        files.write_json(path, {"achieved": [{"method": "drop_blocks", "share": share}]})
        paths.append(str(path))
    cuts.collect(reversed(paths), str(tmp_path / "cuts.tsv"))
    expected = {("a", "drop_blocks_blocks~2"): 0.25, ("b", "drop_blocks_blocks~2"): 0.5}
    assert cuts.read(str(tmp_path / "cuts.tsv")) == expected
    cuts.collect([], str(tmp_path / "none.tsv"))
    assert cuts.read(str(tmp_path / "none.tsv")) == {}
