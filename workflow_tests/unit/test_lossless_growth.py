"""What must lose nothing: growth that preserves the function, on the real default model."""

import pytest
import torch

import default_model
from hemorrhage import plugins
from hemorrhage.architecture import models
from tiny_data import TinyData

pytestmark = pytest.mark.slow
EXACT = {"identity_blocks": {"blocks": 8}}  # no sum is made in another order
# Sums over channels or experts are made in another order: float32 leaves less than 1e-5 of the largest logit.
REORDERED = {"widen": {"share": 0.5}, "upcycle": {"sigma": 0, "experts": 4}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return default_model.shared(tmp_path_factory)


def moved(folder, method, settings):
    """The largest change of a logit over the largest logit, after the method."""
    model = models.load(folder / "base", "float32", "cpu")
    tokens = default_model.held_out(folder)[:2]
    with torch.no_grad():
        before = model(tokens).logits
        plugin = plugins.get("modifications", method)
        plugin.module.apply(model, plugin.settings(settings), TinyData())
        return float((model(tokens).logits - before).abs().max() / before.abs().max())


@pytest.mark.parametrize("method", EXACT)
def test_identity_blocks_leave_every_logit_as_it_is(method, folder):
    assert moved(folder, method, EXACT[method]) == 0


@pytest.mark.parametrize("method", REORDERED)
def test_what_sums_in_another_order_moves_logits_by_rounding_alone(method, folder):
    assert moved(folder, method, REORDERED[method]) < 1e-5
