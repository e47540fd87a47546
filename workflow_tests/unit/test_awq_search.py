"""AWQ's searches against their formulas written out."""

import pytest
import torch

from hemorrhage.methods import awq_search, tensors


def problem(rows=16, columns=32, tokens=300, seed=0):
    """(weight, inputs [tokens, in] with a few large channels)."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(tokens, columns, generator=generator)
    x[:, ::9] *= 20
    return torch.randn(rows, columns, generator=generator), x


def rounder(bits, group):
    return lambda weight: tensors.quantize_rtn(weight, bits, False, group)


@pytest.mark.parametrize(("bits", "group"), [(3, None), (3, 8), (4, 16)])
def test_the_exponent_is_the_one_with_the_smallest_error_of_the_outputs(bits, group):
    weight, x = problem()
    quantize = rounder(bits, group)
    errors = []
    for point in range(20):
        scale = x.abs().mean(0) ** (point / 20)
        scale = scale / (scale.max() * scale.min()) ** 0.5
        errors.append(float(((x / scale) @ quantize(weight * scale).T - x @ weight.T).square().sum(1).mean()))
    ratio, error = awq_search.search_ratio(weight, x.T @ x / len(x), x.abs().mean(0), quantize)
    assert ratio == errors.index(min(errors)) / 20
    assert float(error.sum()) == pytest.approx(min(errors), rel=1e-3)
    assert ratio > 0
    assert min(errors) < errors[0]  # below rounding to nearest


@pytest.mark.parametrize("group", [8, 32])
def test_ranges_are_those_with_the_smallest_error_of_their_groups(group):
    weight, x = problem(seed=1)
    quantize = rounder(2, group)
    clipped = awq_search.clip(weight, x.T @ x / len(x), group, quantize)
    for row in range(len(weight)):
        for start in range(0, 32, group):
            part, inputs = weight[row, start : start + group], x[:, start : start + group]
            limits = [part.abs().max() * (1 - shrink / 20) for shrink in range(10)]
            errors = [
                float((inputs @ (quantize(part.clamp(-limit, limit)[None])[0] - part)).square().sum())
                for limit in limits
            ]
            best = limits[errors.index(min(errors))]
            torch.testing.assert_close(clipped[row, start : start + group], part.clamp(-best, best))
    assert (clipped != weight).any()


def test_channels_that_were_always_zero_and_rows_of_zeros_stay_finite():
    weight, x = problem()
    x[:, 3], weight[2], weight[4] = 0, 0, 1.5
    quantize = rounder(3, 8)
    gram, mean = x.T @ x / len(x), x.abs().mean(0)
    ratio, _ = awq_search.search_ratio(weight, gram, mean, quantize)
    scale = awq_search.scales(mean, ratio)
    result = awq_search.scaled(awq_search.clip(weight, gram, 8, quantize), scale, quantize)
    assert torch.isfinite(result).all()
    assert (result[2] == 0).all()
