"""OWL: outlier ratios, kept shares, and methods that use them."""

import numpy as np
import pytest
import torch

import tiny
from hemorrhage import plugins
from hemorrhage.activations import calibration
from hemorrhage.architecture import targets
from hemorrhage.methods import allocation
from tiny_data import TinyData

RATIOS = np.array([0.02, 0.05, 0.01, 0.03])
EVEN = np.ones(4)
OWL = {"allocation": "owl"}


def test_kept_shares_follow_the_published_formula_where_nothing_is_clipped():
    kept = allocation.kept_shares(RATIOS, EVEN, 0.6, 0.08)
    published = (RATIOS - RATIOS.min()) / (RATIOS.max() - RATIOS.min()) * 2 * 0.08
    np.testing.assert_allclose(kept, published - published.mean() + 0.4, atol=1e-12)


@pytest.mark.parametrize("sparsity", [0, 0.02, 0.5, 0.7, 0.95, 0.99, 1])
@pytest.mark.parametrize("sizes", [EVEN, np.array([1.0, 5.0, 2.0, 0.0])])
def test_the_model_as_a_whole_has_the_asked_sparsity(sparsity, sizes):
    kept = allocation.kept_shares(RATIOS, sizes, sparsity, 0.2)
    assert (kept >= 0).all()
    assert (kept <= 1).all()
    assert np.average(kept, weights=sizes) == pytest.approx(1 - sparsity, abs=1e-12)


def test_equal_blocks_and_no_spread_are_uniform():
    np.testing.assert_allclose(allocation.kept_shares(np.full(4, 0.1), EVEN, 0.3, 0.08), 0.7)
    np.testing.assert_allclose(allocation.kept_shares(RATIOS, EVEN, 0.3, 0), 0.7)


def test_outlier_ratios_are_counted_on_the_dense_model(architecture):
    model, tokens = tiny.build(architecture), TinyData(architecture).tokens("default")
    expected = {index: [] for index in range(3)}

    def note(group):
        for target in group.targets if group.rows else ():
            expected[target.block].append((target.weight.abs() * group.square_mean().sqrt()).flatten())

    calibration.walk(model, tokens, note)
    found = allocation.outlier_ratios(model, tokens, 3.0)
    for index, parts in expected.items():
        block = torch.cat(parts)
        assert found[index] == pytest.approx(float((block > 3 * block.mean()).float().mean()), abs=2e-4)


@pytest.mark.parametrize(
    "method", ["magnitude", "wanda", "sparsegpt", "ria", "admm", "dsnot", "gradient_aware", "taylor"]
)
def test_blocks_with_more_outliers_keep_more(method):
    model, plugin, data = tiny.build(), plugins.get("modifications", method), TinyData()
    ratios = allocation.outlier_ratios(model, data.tokens("default"), 2.0)
    settings = plugin.settings({"sparsity": 0.5, "outlier_factor": 2, "allocation_spread": 0.2, **OWL})
    achieved = plugin.module.apply(model, settings, data)
    shares = achieved["sparsity_of_blocks"]
    assert np.argsort(shares).tolist() == np.argsort(-ratios).tolist()
    assert achieved["sparsity"] == pytest.approx(0.5, abs=0.01)  # rows of 32 weights are rounded
    for block, share in enumerate(shares):
        zeros = [float((target.weight == 0).float().mean()) for target in targets.find(model) if target.block == block]
        assert zeros == pytest.approx([share] * len(zeros), abs=1 / 64)


def test_sparsity_0_leaves_the_model_alone():
    model, plugin = tiny.build(), plugins.get("modifications", "wanda")
    achieved = plugin.module.apply(model, plugin.settings({"sparsity": 0, **OWL}), TinyData())
    assert achieved["pruned"] == 0
    assert achieved["sparsity_of_blocks"] == pytest.approx([0, 0, 0])


def test_magnitude_reads_tokens_for_owl_alone():
    plugin = plugins.get("modifications", "magnitude")
    assert plugin.settings({"sparsity": 0.5}).calibration is None
    assert plugin.settings({"sparsity": 0.5, **OWL}).calibration == "default"
    with pytest.raises(ValueError, match="magnitude: calibration: 'long' is not read"):
        plugin.settings({"sparsity": 0.5, "calibration": "long"})


def test_a_pattern_leaves_nothing_to_allocate():
    with pytest.raises(ValueError, match="wanda: allocation: owl"):
        plugins.get("modifications", "wanda").settings({"pattern": "2:4", **OWL})
