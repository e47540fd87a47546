"""Grids and masks against their plain formulas."""

import pytest
import torch

from hemorrhage.methods import tensors


def plain_mask(score, sparsity, per):
    """Sort (score, index) pairs in Python and drop the first k."""
    rows = score.tolist() if per == "row" else [score.flatten().tolist()]
    result = []
    for row in rows:
        k = int(sparsity * len(row) + 0.5)
        dropped = {index for _, index in sorted((value, index) for index, value in enumerate(row))[:k]}
        result += [index not in dropped for index in range(len(row))]
    return torch.tensor(result).reshape(score.shape)


@pytest.mark.parametrize("per", ["row", "matrix"])
@pytest.mark.parametrize("sparsity", [0, 0.03, 0.25, 0.5, 0.51, 0.999, 1])
@pytest.mark.parametrize("levels", [2, 5, 10**6], ids=["many-ties", "some-ties", "no-ties"])
def test_keep_mask_prunes_the_lowest_ranks_and_breaks_ties_by_index(per, sparsity, levels, device):
    score = torch.randint(0, levels, (7, 33), generator=torch.Generator().manual_seed(1)).float().to(device)
    assert torch.equal(tensors.keep_mask(score, sparsity, per).cpu(), plain_mask(score, sparsity, per))


def test_keep_mask_prunes_the_exact_count_when_all_scores_are_equal(device):
    mask = tensors.keep_mask(torch.zeros(3, 10, device=device), 0.25)
    assert (~mask).sum(1).tolist() == [3, 3, 3]  # floor(2.5 + 0.5)
    assert (~mask)[:, :3].all()


def test_keep_mask_takes_a_transposed_score(device):
    score = torch.rand(8, 6, device=device)
    assert torch.equal(tensors.keep_mask(score.T, 0.5), tensors.keep_mask(score.T.contiguous(), 0.5))


@pytest.mark.parametrize(("n", "m"), [(2, 4), (4, 8), (1, 4), (5, 8), (4, 4)])
def test_keep_mask_nm_keeps_the_highest_n_of_every_m(n, m, device):
    score = torch.rand(6, 48, generator=torch.Generator().manual_seed(2)).to(device)
    mask = tensors.keep_mask_nm(score, n, m)
    groups, kept = score.reshape(-1, m), mask.reshape(-1, m)
    assert (kept.sum(1) == n).all()
    for row, keep in zip(groups, kept, strict=True):
        assert set(row[keep].tolist()) == set(row.topk(n).values.tolist())


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("group", [None, 8])
def test_asymmetric_grid_follows_the_formula(bits, group, device):
    weight = torch.randn(5, 24, generator=torch.Generator().manual_seed(3)).to(device)
    result = tensors.quantize_rtn(weight, bits, symmetric=False, group=group)
    size = group or 24
    for row, quantized in zip(weight.reshape(-1, size), result.reshape(-1, size), strict=True):
        low, high = min(row.min(), torch.tensor(0.0)), max(row.max(), torch.tensor(0.0))
        step = (high - low) / (2**bits - 1)
        zero = -torch.round(low / step)
        expected = (torch.clamp(torch.round(row / step) + zero, 0, 2**bits - 1) - zero) * step
        torch.testing.assert_close(quantized, expected)
        assert len(quantized.unique()) <= 2**bits
        assert (quantized - row).abs().max() <= step * 1.001


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_symmetric_grid_follows_the_formula(bits, device):
    weight = torch.randn(5, 24, generator=torch.Generator().manual_seed(3)).to(device)
    step = weight.abs().amax(1, keepdim=True) / (2 ** (bits - 1) - 1)
    result = tensors.quantize_rtn(weight, bits, symmetric=True, group=None)
    torch.testing.assert_close(result, torch.round(weight / step) * step)
    assert (result - weight).abs().le(step / 2 * 1.001).all()


@pytest.mark.parametrize("symmetric", [True, False])
def test_grid_holds_zero_and_survives_rows_of_zeros_and_of_one_sign(symmetric, device):
    weight = torch.tensor([[0.0, 0, 0, 0], [0, 1, 2, 3], [0, -1, -2, -3], [5, 5, 5, 5]], device=device)
    result = tensors.quantize_rtn(weight, 4, symmetric, None)
    assert torch.isfinite(result).all()
    assert (result[weight == 0] == 0).all()
    torch.testing.assert_close(result[3], weight[3])


def test_quantising_twice_changes_nothing_more(device):
    weight = torch.randn(4, 32, device=device)
    once = tensors.quantize_rtn(weight, 4, True, 8)
    torch.testing.assert_close(tensors.quantize_rtn(once, 4, True, 8), once)


def test_activation_step_is_per_token_or_given(device):
    x = torch.tensor([[1.0, -0.5, 0.26], [100.0, 1.0, 49.0]], device=device)
    step = torch.tensor([[1 / 7], [100 / 7]], device=device)
    torch.testing.assert_close(tensors.quantize_activation(x, 4), torch.round(x / step) * step)
    static = tensors.quantize_activation(x, 4, scale=0.5)
    torch.testing.assert_close(static, torch.clamp(torch.round(x / 0.5), -7, 7) * 0.5)
    assert static.max() == 3.5  # clipped


def test_activation_keeps_its_type(device):
    assert tensors.quantize_activation(torch.randn(2, 4, device=device).bfloat16(), 8).dtype == torch.bfloat16


def test_require_finite_names_the_tensor_and_the_count():
    with pytest.raises(ValueError, match=r"layer\.7: 1 of 3 values"):
        tensors.require_finite(torch.tensor([1.0, float("nan"), 2.0]), "layer.7")
