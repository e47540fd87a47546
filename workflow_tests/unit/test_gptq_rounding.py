"""GPTQ against its loop written out plainly, and on inputs that break careless code."""

import math

import pytest
import torch
from plain_solvers import plain_gptq

from hemorrhage.methods import gptq_rounding, tensors
from hemorrhage.methods.gptq_rounding import Options


def problem(rows=24, columns=64, tokens=400, seed=0, device="cpu"):
    """(weight, second moments of correlated inputs with some large channels)."""
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(columns, columns, generator=generator) / columns**0.5 + torch.eye(columns)
    x = torch.randn(tokens, columns, generator=generator) @ mix
    x[:, ::17] *= 8
    return torch.randn(rows, columns, generator=generator).to(device), (x.T @ x / tokens).to(device)


def output_error(changed, weight, gram):
    delta = changed.double() - weight.double()
    return float(((delta @ gram.double()) * delta).sum())


OPTIONS = [
    Options(bits, symmetric, group, act_order, static)
    for bits in (2, 3, 4)
    for symmetric in (False, True)
    for group, static in ((None, False), (16, False), (16, True), (8, False))
    for act_order in (False, True)
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_the_error_is_that_of_the_plain_loop_and_below_rounding_to_nearest(options):
    weight, gram = problem()
    result, errors, damping = gptq_rounding.quantize(weight, gram, options, 0.01)
    error = output_error(result, weight, gram)
    assert error == pytest.approx(output_error(plain_gptq(weight, gram, options), weight, gram), rel=0.01)
    if options.bits > 2:  # with two bits the grid has no room for corrections
        nearest = tensors.quantize_rtn(weight, options.bits, options.symmetric, options.group)
        assert error < output_error(nearest, weight, gram)
    assert float(errors.sum()) == pytest.approx(error, rel=1e-3)
    assert damping == 0.01


def test_blocks_change_nothing_but_the_speed(device, monkeypatch):
    weight, gram = problem(columns=200, device=device)
    whole = gptq_rounding.quantize(weight, gram, Options(3), 0.01)[0]
    monkeypatch.setattr(gptq_rounding, "BLOCK", 7)
    parts = gptq_rounding.quantize(weight, gram, Options(3), 0.01)[0]
    assert output_error(parts, weight, gram) == pytest.approx(output_error(whole, weight, gram), rel=0.01)
    assert float((parts == whole).float().mean()) > 0.9


@pytest.mark.parametrize("group", [None, 16])
def test_every_group_has_at_most_2_to_the_bits_values(group):
    weight, gram = problem()
    result, _, _ = gptq_rounding.quantize(weight, gram, Options(3, group=group), 0.01)
    assert max(len(row.unique()) for row in result.reshape(-1, group or 64)) <= 8


def test_the_weight_that_is_given_stays_as_it_is():
    for rows in (1, 5):
        weight, gram = problem(rows=rows)
        before = weight.clone()
        result, _, _ = gptq_rounding.quantize(weight, gram, Options(3), 0.01)
        assert torch.equal(weight, before)
        assert not torch.equal(result, before)


def test_rows_do_not_depend_on_each_other():
    weight, gram = problem()
    both, _, _ = gptq_rounding.quantize(weight, gram, Options(4, group=16), 0.01)
    first, _, _ = gptq_rounding.quantize(weight[:9], gram, Options(4, group=16), 0.01)
    torch.testing.assert_close(both[:9], first, rtol=1e-4, atol=1e-4)


def test_damping_is_raised_until_the_inputs_can_be_inverted():
    x = torch.randn(3, 64, generator=torch.Generator().manual_seed(1))  # one short sequence: rank 3 of 64
    weight, _ = problem()
    gram = x.T @ x / 3
    result, errors, damping = gptq_rounding.quantize(weight, gram, Options(4), 0.0)
    assert damping > 0
    assert torch.isfinite(result).all()
    nearest = tensors.quantize_rtn(weight, 4, False, None)
    assert output_error(result, weight, gram) < output_error(nearest, weight, gram)
    assert (errors >= 0).all()
    assert gptq_rounding.quantize(weight, gram, Options(4), 0.01)[2] == 0.01


def test_a_moment_matrix_with_a_negative_direction_is_damped():
    weight, gram = problem()
    vector = torch.linalg.eigh(gram)[1][:, 0]
    result, _, damping = gptq_rounding.quantize(
        weight, gram - 0.5 * gram.diagonal().mean() * vector.outer(vector), Options(4), 0.01
    )
    assert 0.01 < damping <= 10
    assert torch.isfinite(result).all()


@pytest.mark.parametrize("act_order", [False, True])
def test_dead_channels_are_rounded_to_nearest(act_order):
    weight, gram = problem()
    dead = [0, 5, 63]
    gram[dead], gram[:, dead] = 0, 0
    result, _, _ = gptq_rounding.quantize(weight, gram, Options(4, act_order=act_order), 0.01)
    nearest = tensors.quantize_rtn(weight, 4, False, None)
    torch.testing.assert_close(result[:, dead], nearest[:, dead])
    assert torch.isfinite(result).all()


def test_without_any_input_it_rounds_to_nearest():
    weight, gram = problem()
    for group in (None, 16):
        result, _, _ = gptq_rounding.quantize(weight, torch.zeros_like(gram), Options(3, group=group), 0.01)
        torch.testing.assert_close(result, tensors.quantize_rtn(weight, 3, False, group))


@pytest.mark.parametrize("symmetric", [False, True])
def test_rows_of_zeros_stay_zero_and_constant_rows_stay_finite(symmetric):
    weight, gram = problem(rows=4)
    weight[0], weight[1], weight[2] = 0, 0.3, -1e-30
    result, errors, _ = gptq_rounding.quantize(weight, gram, Options(3, symmetric, group=16), 0.01)
    assert (result[0] == 0).all()
    assert torch.isfinite(result).all()
    torch.testing.assert_close(result[1], weight[1])
    assert float(errors[0]) == 0


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_inputs_that_are_not_finite_are_refused(value):
    weight, gram = problem()
    gram[3, 4] = gram[4, 3] = value
    with pytest.raises(ValueError, match="not finite"):
        gptq_rounding.quantize(weight, gram, Options(3), 0.01)
