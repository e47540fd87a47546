"""DSnoT's swaps against one row done by hand, in plain Python."""

import pytest
import torch

from hemorrhage.methods import scores, swapping, tensors


def problem(seed=0, out=12, width=64):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(out, width, generator=generator)
    mean = torch.randn(width, generator=generator)
    variance = torch.rand(width, generator=generator) + 0.1
    cost = scores.wanda(weight, (variance + mean.square()).sqrt())
    return weight, mean, variance, cost


def by_hand(weight, keep, mean, variance, cost, threshold, cycles):
    """One row, with sorted lists: regrow what gives most back, prune the cheapest of the other sign."""
    given = [float(value) for value in weight * mean]
    width = range(len(given))
    keep = keep.tolist()
    missing = sum(given[j] for j in width if not keep[j])
    gain = [abs(value) / float(spread) for value, spread in zip(given, variance, strict=True)]
    grow = {s: sorted((j for j in width if not keep[j] and s * given[j] > 0), key=lambda j: -gain[j]) for s in (1, -1)}
    prune = {s: sorted((j for j in width if keep[j] and s * given[j] > 0), key=lambda j: cost[j]) for s in (1, -1)}
    for _ in range(cycles):
        sign = 1 if missing > 0 else -1
        if abs(missing) <= threshold or not grow[sign] or not prune[-sign]:
            break
        back, gone = grow[sign].pop(0), prune[-sign].pop(0)
        keep[back], keep[gone] = True, False
        missing += given[gone] - given[back]
    return keep


@pytest.mark.parametrize("sparsity", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("cycles", [0, 3, 50])
def test_every_row_swaps_as_by_hand(sparsity, cycles):
    weight, mean, variance, cost = problem()
    keep = tensors.keep_mask(cost, sparsity)
    refined, swaps = swapping.refine(weight, keep, mean, variance, cost, 0.05, cycles)
    rows = [by_hand(weight[i], keep[i], mean, variance, cost[i], 0.05, cycles) for i in range(len(weight))]
    assert refined.tolist() == rows
    assert swaps >= int((refined & ~keep).sum())


def test_swaps_bring_the_expected_output_back():
    weight, mean, variance, cost = problem()
    keep = tensors.keep_mask(cost, 0.6)
    refined, _ = swapping.refine(weight, keep, mean, variance, cost, 0.05, 50)
    before, after = ((weight * mean * ~mask).sum(1).abs() for mask in (keep, refined))
    assert after.mean() < 0.5 * before.mean()
    assert torch.equal(refined.sum(1), keep.sum(1))


@pytest.mark.parametrize(("n", "m"), [(2, 4), (4, 8), (1, 4)])
def test_patterns_stay_and_no_swap_overshoots(n, m):
    weight, mean, variance, cost = problem()
    keep = tensors.keep_mask_nm(cost, n, m)
    refined, swaps = swapping.refine_groups(weight, keep, mean, variance, cost, 0.05, 50, m)
    assert swaps > 0
    assert (refined.reshape(-1, m).sum(1) == n).all()
    before, after = ((weight * mean * ~mask).sum(1) for mask in (keep, refined))
    assert (before.sign() == after.sign()).all()
    assert not torch.equal(refined, keep)


def test_a_row_without_candidates_stops():
    weight = torch.ones(1, 4)
    keep = torch.tensor([[True, True, False, False]])
    refined, swaps = swapping.refine(weight, keep, torch.ones(4), torch.ones(4), weight, 0.0, 50)
    assert torch.equal(refined, keep)  # nothing negative can be pruned
    assert swaps == 0
