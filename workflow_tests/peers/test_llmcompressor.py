"""llm-compressor's Wanda, SparseGPT, GPTQ, AWQ and SmoothQuant against ours, on the default model at levels that hurt.

Both get the same calibration tokens in the same order; ours takes the order "block", which is llm-compressor's. What
the numbers are, and why some distances cannot be small, is in docs/peers.md.
"""

import pytest
import torch
from peers import compressors, default_model

from hemorrhage.architecture import targets

pytestmark = pytest.mark.peer
pytest.importorskip("llmcompressor")

SPARSITY, BITS, GROUP, SMOOTH_BITS = 0.6, 3, 64, 6
BLOCK = {"order": "block"}
CASES = {
    "wanda": ("wanda", {"sparsity": SPARSITY, **BLOCK}, lambda: compressors.wanda(SPARSITY)),
    "sparsegpt": ("sparsegpt", {"sparsity": SPARSITY, **BLOCK}, lambda: compressors.sparsegpt(SPARSITY)),
    "gptq": ("gptq", {"bits": BITS, "group": GROUP, **BLOCK}, lambda: compressors.gptq(BITS, GROUP, True)),
    "gptq by channel": (
        "gptq",
        {"bits": BITS, "act_order": False, **BLOCK},
        lambda: compressors.gptq(BITS, None, False),
    ),
    "awq": ("awq", {"bits": BITS, "group": GROUP, "clip": False, **BLOCK}, lambda: compressors.awq(BITS, GROUP)),
    "smoothquant": ("smoothquant", {"bits": SMOOTH_BITS}, lambda: compressors.smoothquant(SMOOTH_BITS, 0.5)),
}


class Pairs:
    """The default model, compressed by ours and by the peer; every result is made once."""

    def __init__(self, folder, blocks=None):
        self.folder, self.blocks, self.made = folder, blocks, {}
        self.ids = default_model.held_out(folder)
        self.dense = compressors.load(folder, blocks)
        self.reference = default_model.log_probabilities(self.dense, self.ids)

    def model(self, case, side):
        """``side``: "ours", "peer", or "backwards": the peer with the last calibration sequence first."""
        method, settings, recipe = CASES[case]
        if (case, side) not in self.made:
            model = compressors.load(self.folder, self.blocks)
            if side == "ours":
                compressors.ours(model, self.folder, method, settings)
            else:
                model = compressors.llmcompressor(model, self.folder, recipe(), backwards=side == "backwards")
            self.made[case, side] = model
        return self.made[case, side]

    def kl(self, case, p, q):
        """KL(p‖q) in nats a token; "reference" is the unmodified model."""
        sides = [
            self.reference if side == "reference" else default_model.log_probabilities(self.model(case, side), self.ids)
            for side in (p, q)
        ]
        value = default_model.mean_kl(*sides)
        print(f"{case}: KL({p}‖{q}) = {value:.4f}")
        return value


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return default_model.shared(tmp_path_factory)


@pytest.fixture(scope="module")
def whole(folder):
    return Pairs(folder)


@pytest.fixture(scope="module")
def first_block(folder):
    """The default model's first block alone: every method sees equal inputs there."""
    return Pairs(folder, blocks=1)


def difference(pairs, case, target, other):
    """‖peer − other‖ as a share of the damage ‖ours − dense‖."""
    ours, dense = target.weight, pairs.dense.get_parameter(target.name)
    return float((pairs.model(case, "peer").get_parameter(target.name) - other).norm() / (ours - dense).norm())


def test_wanda_is_the_peers(whole):
    assert whole.kl("wanda", "peer", "ours") <= 0.25 * whole.kl("wanda", "reference", "ours")


@pytest.mark.parametrize("case", ["sparsegpt", "gptq", "gptq by channel", "awq", "smoothquant"])
def test_ours_does_no_more_damage_than_the_peer(whole, case):
    assert whole.kl(case, "reference", "ours") <= 1.1 * whole.kl(case, "reference", "peer")


@pytest.mark.parametrize("case", ["sparsegpt", "gptq", "gptq by channel"])
def test_ours_is_as_near_to_the_peer_as_the_peer_to_itself(whole, case):
    floor = whole.kl(case, "peer", "backwards")
    near = max(0.25 * whole.kl(case, "reference", "ours"), 1.5 * floor)
    assert whole.kl(case, "peer", "ours") <= near


@pytest.mark.parametrize(
    ("case", "most"), [("sparsegpt", 0.2), ("gptq", 0.2), ("gptq by channel", 0.2)], ids=lambda value: str(value)
)
def test_on_equal_inputs_the_solvers_agree(first_block, case, most):
    for target in targets.find(first_block.model(case, "ours")):
        assert difference(first_block, case, target, target.weight) <= most, target.name


def test_on_equal_inputs_the_masks_of_wanda_are_identical_but_for_one_weight_a_row(first_block):
    for target in targets.find(first_block.model("wanda", "ours")):
        ours = target.weight == 0
        peer = first_block.model("wanda", "peer").get_parameter(target.name) == 0
        # the peer prunes int(0.6 · n) weights of a row, this project the nearest whole number
        assert int((ours ^ peer).sum(1).max()) <= 1, target.name


def test_gptq_of_queries_keys_and_values_equals_the_peers(first_block):
    for target in targets.find(first_block.model("gptq", "ours"))[:3]:
        peer = first_block.model("gptq", "peer").get_parameter(target.name)
        same = torch.isclose(target.weight, peer, rtol=1e-4, atol=1e-6).float().mean()
        assert float(same) >= 0.999, target.name
