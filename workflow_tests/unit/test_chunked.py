"""The chunked form of the walk gives what one pass gives."""

import pytest
import torch

import tiny
from hemorrhage.activations import calibration
from hemorrhage.architecture import targets

VECTORS = ("square_mean", "absolute_max", "absolute_mean", "gram")


def wanda(group):
    """Prune half of every row by |w|·‖x‖, by rank."""
    for target in group.targets:
        weight = target.weight.clone()
        score = weight.abs() * group.square_mean().sqrt() if group.rows else weight.abs()
        weight.scatter_(1, score.argsort(dim=1, stable=True)[:, : weight.shape[1] // 2], 0.0)
        target.write(weight)


def hooks(model):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


@pytest.mark.parametrize("order", calibration.ORDERS)
@pytest.mark.parametrize("chunk", [1, 3])
def test_chunks_change_the_weights_like_one_pass(architecture, device, order, chunk):
    tokens = tiny.tokens(7, 16, device=device)
    whole, parts = tiny.build(architecture, device=device), tiny.build(architecture, device=device)
    calibration.walk(whole, tokens, wanda, order=order)
    calibration.walk(parts, tokens, wanda, order=order, chunk=chunk)
    total = equal = 0
    for a, b in zip(targets.find(whole), targets.find(parts), strict=True):
        total += a.weight.numel()
        equal += ((a.weight == 0) == (b.weight == 0)).sum().item()
    assert equal / total > 0.9999
    assert hooks(parts) == 0
    assert not any("forward" in vars(module) for module in parts.modules())


@pytest.mark.parametrize("order", calibration.ORDERS)
def test_chunks_sum_the_same_statistics(architecture, order):
    tokens = tiny.tokens(5, 16)

    def shrink(store):
        def visit(group):
            store.append([getattr(group, name)() for name in VECTORS] + [torch.tensor(group.rows)])
            for target in group.targets:
                target.write(target.weight * (1 - 0.1 * group.square_mean().sqrt().clamp(max=1)))

        return visit

    one, many = [], []
    whole, parts = tiny.build(architecture), tiny.build(architecture)
    calibration.walk(whole, tokens, shrink(one), statistics=VECTORS, order=order)
    calibration.walk(parts, tokens, shrink(many), statistics=VECTORS, order=order, chunk=2)
    torch.testing.assert_close(one, many, rtol=1e-4, atol=1e-5)
    for a, b in zip(targets.find(whole), targets.find(parts), strict=True):
        torch.testing.assert_close(a.weight, b.weight, rtol=1e-5, atol=1e-5)
