"""GPTQModel against our GPTQ on the default model, 3 bits, with the same calibration tokens in the same order.

GPTQModel quantises true-sequentially, which is our order "linear". Its packed checkpoint is read with ``given``; scales
lie in it in half precision. What the numbers are, and why the distance is not small, is in docs/peers.md.
"""

import pytest
import torch
from peers import compressors

import default_model
from hemorrhage import plugins
from hemorrhage.architecture import targets
from hemorrhage.modification_data import ModificationData

pytestmark = pytest.mark.peer
BITS, GROUP = 3, 64
OURS = {"bits": BITS, "group": GROUP, "act_order": True, "static_groups": True}


@pytest.fixture(scope="module")
def quantized(tmp_path_factory):
    """(dense, ours, GPTQModel's as ``given`` reads it, held-out token ids)."""
    pytest.importorskip("gptqmodel")
    folder = default_model.shared(tmp_path_factory)
    packed = tmp_path_factory.mktemp("packed")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(packed)  # it writes logs where it runs
        packing, rows = compressors.gptqmodel(folder, bits=BITS, group_size=GROUP, desc_act=True, static_groups=True)
        compressors.quantize(packing, rows)
        packing.save(str(packed / "checkpoint"))
    given = plugins.get("modifications", "given")
    peer = given.module.load(given.settings({"path": str(packed / "checkpoint")}), ModificationData(folder))
    ours = compressors.load(folder)
    compressors.ours(ours, folder, "gptq", OURS)
    return compressors.load(folder), ours, peer, default_model.held_out(folder)


def test_on_equal_inputs_the_weights_are_gptqmodels(quantized):
    _, ours, peer, _ = quantized
    for target in targets.find(ours)[:3]:  # queries, keys and values of the first block
        other = peer.get_parameter(target.name)
        share = float(torch.isclose(target.weight, other, rtol=2e-3, atol=1e-5).float().mean())
        print(f"{target.name}: {share:.5f} equal but for the precision of the scales")
        assert share >= 0.999, target.name


def test_ours_does_no_more_damage_than_gptqmodel(quantized):
    *models, ids = quantized
    reference, ours, peer = (default_model.log_probabilities(model, ids) for model in models)
    damage, theirs = default_model.mean_kl(reference, ours), default_model.mean_kl(reference, peer)
    apart = default_model.mean_kl(peer, ours)
    print(f"KL(reference‖ours) {damage:.4f}, KL(reference‖peer) {theirs:.4f}, KL(peer‖ours) {apart:.4f}")
    assert torch.isfinite(torch.tensor([damage, theirs, apart])).all()
    assert damage <= 1.1 * theirs
