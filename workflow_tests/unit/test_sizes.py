"""Bits per weight and per parameter, counted by hand."""

import pytest
import torch

from hemorrhage.methods import sizes


def test_uniform_grids_count_scales_and_zero_points():
    assert sizes.uniform(4, symmetric=True, group=64) == 4.25
    assert sizes.uniform(4, symmetric=False, group=64) == 4.3125


def test_the_rest_of_the_model_counts_16_bits_and_a_tied_weight_once():
    model = torch.nn.Sequential(torch.nn.Linear(8, 4), torch.nn.Linear(8, 4), torch.nn.Linear(4, 8, bias=False))
    model[1].weight = model[0].weight
    counted = sizes.Sizes(model)
    counted.add(32, 4.5)
    counted.add(32, 3.5)
    achieved = counted.achieved()
    parameters = 32 + 4 + 4 + 32
    assert achieved["bits_per_weight"] == 4
    assert achieved["weights"] == 64
    assert achieved["bits_per_parameter"] == pytest.approx((64 * 4 + (parameters - 64) * 16) / parameters)
