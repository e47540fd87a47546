"""On the default model, solvers lose less at every layer than plain scores, and as much as their plain formulas."""

import pytest
import torch
from plain_solvers import plain_gptq, plain_sparsegpt

import default_model
from hemorrhage.activations import calibration
from hemorrhage.architecture import models
from hemorrhage.corpus.tokens import TokenSet
from hemorrhage.methods import factors, gptq_rounding, scores, surgeon, tensors

pytestmark = pytest.mark.slow
SPARSITY, BITS, GROUP, DAMPING = 0.6, 3, 64, 0.01
OPTIONS = gptq_rounding.Options(BITS, False, GROUP, act_order=True, static_groups=True)
PLAIN_BLOCKS = (0, 15, 29)  # the plain loops are slow
ROWS = 64  # of a weight that the plain loops see: rows do not depend on each other, in GPTQ


def layer_error(new, weight, gram):
    """Mean squared error of a layer's outputs."""
    return float(tensors.output_energy(new.float() - weight, gram).sum())


@pytest.fixture(scope="module")
def layers(tmp_path_factory):
    """Per target (name, block, weight, Gram matrix of its input) of the unmodified default model."""
    folder = default_model.shared(tmp_path_factory)
    model = models.load(folder / "base", "float32", "cpu")
    tokens = torch.as_tensor(TokenSet.load(folder / "tokens" / "calibration.default.npz").tokens, dtype=torch.long)
    found = []

    def visit(group):
        gram = group.gram()
        found.extend((target.name, target.block, target.weight.clone(), gram) for target in group.targets)

    calibration.walk(model, tokens, visit, statistics=("gram",))
    return found


@pytest.fixture(scope="module")
def errors(layers):
    """Per target the layer error of each method."""
    table = {}
    for name, _, weight, gram in layers:
        factor, _ = factors.inverse_factor(gram, DAMPING)
        wanda = tensors.keep_mask(scores.wanda(weight, gram.diagonal().sqrt()), SPARSITY, "row")
        ((_, sparsegpt),) = surgeon.prune([weight], factor, [SPARSITY])
        changed = {
            "wanda": weight.masked_fill(~wanda, 0),
            "sparsegpt": sparsegpt,
            "rtn": tensors.quantize_rtn(weight, BITS, False, GROUP),
            "gptq": gptq_rounding.quantize(weight, gram, OPTIONS, DAMPING)[0],
        }
        table[name] = {method: layer_error(new, weight, gram) for method, new in changed.items()}
    return table


@pytest.mark.parametrize(("solver", "plain"), [("sparsegpt", "wanda"), ("gptq", "rtn")])
def test_a_solver_loses_less_than_plain_scores(errors, solver, plain):
    total = {method: sum(found[method] for found in errors.values()) for method in (solver, plain)}
    better = sum(found[solver] < found[plain] for found in errors.values()) / len(errors)
    print(
        f"{solver} / {plain}: total {total[solver] / total[plain]:.3f}, lower in {better:.3f} of {len(errors)} layers"
    )
    assert total[solver] < total[plain]
    assert better >= 0.95


def test_the_layer_error_is_that_of_the_plain_formulas(layers, errors):
    for name, block, weight, gram in layers:
        if block not in PLAIN_BLOCKS:
            continue
        part = weight[:ROWS]
        fast, _, _ = gptq_rounding.quantize(part, gram, OPTIONS, DAMPING)
        plain = plain_gptq(part, gram, OPTIONS, DAMPING).float()
        assert layer_error(fast, part, gram) == pytest.approx(layer_error(plain, part, gram), rel=0.01), name
        _, plain = plain_sparsegpt(weight, gram, SPARSITY, damping=DAMPING)
        assert errors[name]["sparsegpt"] == pytest.approx(layer_error(plain, weight, gram), rel=0.01), name
