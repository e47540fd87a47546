"""Tables of 16 values, 8-bit floats and GGUF's blocks against their plain formulas."""

import pytest
import torch

from hemorrhage.methods import grids


def matrix(rows=6, columns=64, seed=0, device="cpu"):
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)).to(device)


def plain_table(weight, table, group):
    """Every value at the nearest of max|w|·table, one weight after the other."""
    flat = weight.flatten().tolist()
    result = []
    for start in range(0, len(flat), group):
        part = flat[start : start + group]
        scale = max(abs(value) for value in part)
        result += [
            min((scale * point for point in table), key=lambda point, value=value: abs(point - value)) for value in part
        ]
    return torch.tensor(result).reshape(weight.shape)


@pytest.mark.parametrize(
    "table", [grids.NF4, grids.fp4_table("bitsandbytes"), grids.fp4_table("e2m1")], ids=["nf4", "fp4", "e2m1"]
)
@pytest.mark.parametrize("group", [64, 32, 48, 1000])
def test_tables_round_to_the_nearest_value_of_a_block(table, group, device):
    weight = matrix(device=device)
    torch.testing.assert_close(grids.round_to_table(weight, table, group).cpu(), plain_table(weight, table, group))


def test_tables_have_16_values_or_15_with_one_zero():
    assert len(grids.NF4) == 16
    assert list(grids.NF4) == sorted(grids.NF4)
    for name in grids.FP4:
        table = grids.fp4_table(name)
        assert len(table) == 15
        assert list(table) == sorted(table) == [-value for value in reversed(table)]
        assert table[-1] == 1
    assert [round(12 * value, 4) for value in grids.FP4["bitsandbytes"]] == [0, 0.0625, 2, 3, 4, 6, 8, 12]
    assert [round(6 * value, 4) for value in grids.FP4["e2m1"]] == [0, 0.5, 1, 1.5, 2, 3, 4, 6]


@pytest.mark.parametrize(("form", "mantissa"), [("e4m3", 3), ("e5m2", 2)])
@pytest.mark.parametrize("by_row", [True, False])
def test_8_bit_floats_keep_their_mantissa_and_the_largest_weight(form, mantissa, by_row, device):
    weight = matrix(device=device)
    result = grids.round_to_float8(weight, form, by_row)
    large = weight.abs() > 0.02 * weight.abs().max()  # normal numbers of both formats
    assert ((result - weight).abs() / weight.abs())[large].max() <= 2.0 ** -(mantissa + 1) * 1.001
    peaks = weight.abs().amax(1) if by_row else weight.abs().amax()
    torch.testing.assert_close(result.abs().amax(1) if by_row else result.abs().amax(), peaks)


@pytest.mark.parametrize(
    ("form", "bits", "minimum"),
    [("Q4_0", 4, False), ("Q5_0", 5, False), ("Q8_0", 8, False), ("Q4_1", 4, True), ("Q5_1", 5, True)],
)
def test_gguf_types_follow_their_formulas(form, bits, minimum):
    weight = matrix()
    result = grids.round_to_gguf(weight, form)
    for block, quantized in zip(weight.reshape(-1, 32), result.reshape(-1, 32), strict=True):
        if minimum:
            step = (block.max() - block.min()) / (2**bits - 1)
            expected = torch.floor((block - block.min()) / step + 0.5) * step.half() + block.min().half()
        elif bits == 8:
            step = block.abs().max() / 127
            expected = torch.round(block / step) * step.half()
        else:  # the value with the largest magnitude sits at the end of the grid that has one level more
            step = block[block.abs().argmax()] / -(2 ** (bits - 1))
            level = torch.floor(block / step + 2 ** (bits - 1) + 0.5).clamp(0, 2**bits - 1) - 2 ** (bits - 1)
            expected = level * step.half()
        torch.testing.assert_close(quantized, expected.float(), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    "rounded",
    [
        lambda w: grids.round_to_table(w, grids.NF4, 64),
        lambda w: grids.round_to_table(w, grids.fp4_table("e2m1"), 64),
        lambda w: grids.round_to_float8(w, "e4m3", True),
        lambda w: grids.round_to_float8(w, "e5m2", True),
        lambda w: grids.round_to_gguf(w, "Q4_0"),
        lambda w: grids.round_to_gguf(w, "Q5_1"),
        lambda w: grids.uniform(w, 4, False).nearest(w),
        lambda w: grids.uniform(w, 4, True).nearest(w),
    ],
    ids=["nf4", "fp4", "e4m3", "e5m2", "q4_0", "q5_1", "asymmetric", "symmetric"],
)
def test_zeros_stay_zero_constants_stay_and_types_are_kept(rounded):
    weight = matrix(rows=4)
    weight[0], weight[1], weight[2] = 0, 0.5, -0.25
    for dtype in (torch.float32, torch.bfloat16):
        result = rounded(weight.to(dtype)).to(dtype)
        assert torch.isfinite(result).all()
        assert (result[0] == 0).all()
        torch.testing.assert_close(result[1:3], weight[1:3].to(dtype), rtol=1e-2, atol=0)


def test_a_grid_along_another_dimension_is_the_same_grid():
    weight = matrix()
    rows, columns = grids.uniform(weight, 3, False), grids.uniform(weight.T.contiguous(), 3, False, dim=0)
    assert torch.equal(rows.nearest(weight), columns.nearest(weight.T).T)
