"""One way to call each compressor on a model folder: this project's, llm-compressor's and GPTQModel's.

``folder`` is a model's result folder with ``base/`` and ``tokens/calibration.default.npz``. All take the same token ids
in the same order. The peer tests compare what comes back, ``benchmarks/compression_speed.py`` how long it takes.
"""

import os
from pathlib import Path

import torch


def calibration(folder):
    """The calibration token ids [N, L] of the study."""
    from hemorrhage.corpus.tokens import TokenSet

    return torch.as_tensor(TokenSet.load(Path(folder) / "tokens" / "calibration.default.npz").tokens, dtype=torch.long)


def load(folder, blocks=None):
    """The unmodified model; with ``blocks`` its first ones alone, with the final norm and the head behind them."""
    from hemorrhage.architecture import models

    model = models.load(Path(folder) / "base", "float32", "cpu")
    if blocks:
        model.model.layers = model.model.layers[:blocks]
        model.config.num_hidden_layers = blocks
    return model


def ours(model, folder, method, settings):
    """Modify ``model`` in place with a method of this project; returns what it achieved."""
    from hemorrhage import plugins
    from hemorrhage.modification_data import ModificationData

    plugin = plugins.get("modifications", method)
    return plugin.module.apply(model, plugin.settings(settings), ModificationData(Path(folder)))


def llmcompressor(model, folder, recipe, backwards=False):
    """Modify ``model`` in place by a recipe of llm-compressor; ``backwards`` gives the last sequence first."""
    from datasets import Dataset
    from llmcompressor import oneshot
    from llmcompressor.pipelines.cache import IntermediatesCache
    from loguru import logger

    logger.remove()
    if not torch.accelerator.is_available():
        IntermediatesCache.pin_memory = lambda self, batch: None  # AWQ pins memory for an accelerator that is not there
    rows = calibration(folder).tolist()[:: -1 if backwards else 1]
    return oneshot(
        model=model,
        dataset=Dataset.from_dict({"input_ids": rows, "attention_mask": [[1] * len(row) for row in rows]}),
        recipe=recipe,
        num_calibration_samples=len(rows),
        shuffle_calibration_samples=False,
        max_seq_length=len(rows[0]),
        clear_sparse_session=True,
    )


def wanda(sparsity):
    """llm-compressor's Wanda."""
    from llmcompressor.modifiers.pruning import WandaPruningModifier

    return [WandaPruningModifier(sparsity=sparsity, mask_structure="0:0", ignore=["lm_head", "re:.*lm_head"])]


def sparsegpt(sparsity):
    """llm-compressor's SparseGPT; damping and block are those of this project."""
    from llmcompressor.modifiers.pruning import SparseGPTModifier

    return [SparseGPTModifier(sparsity=sparsity, mask_structure="0:0", ignore=["lm_head", "re:.*lm_head"])]


def _weights(bits, group):
    from compressed_tensors.quantization import QuantizationArgs

    kind = {"strategy": "group", "group_size": group} if group else {"strategy": "channel"}
    return QuantizationArgs(num_bits=bits, type="int", symmetric=False, observer="memoryless_minmax", **kind)


def gptq(bits, group, act_order):
    """llm-compressor's GPTQ with asymmetric grids; "static" ordering keeps groups of neighbours."""
    from compressed_tensors.quantization import QuantizationScheme
    from llmcompressor.modifiers.gptq import GPTQModifier

    scheme = QuantizationScheme(targets=["Linear"], weights=_weights(bits, group))
    order = "static" if act_order else None
    return [GPTQModifier(config_groups={"group_0": scheme}, ignore=["lm_head"], actorder=order)]


def awq(bits, group, duo_scaling=False):
    """llm-compressor's AWQ with asymmetric grids; without ``duo_scaling`` the scales are the paper's."""
    from compressed_tensors.quantization import QuantizationScheme
    from llmcompressor.modifiers.quantization import QuantizationModifier
    from llmcompressor.modifiers.transform.awq import AWQModifier

    scheme = QuantizationScheme(targets=["Linear"], weights=_weights(bits, group))
    return [
        AWQModifier(duo_scaling=duo_scaling),
        QuantizationModifier(config_groups={"group_0": scheme}, ignore=["lm_head"]),
    ]


def smoothquant(bits, alpha):
    """llm-compressor's SmoothQuant: one symmetric grid a row of a weight and a token of an input."""
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
    from llmcompressor.modifiers.quantization import QuantizationModifier
    from llmcompressor.modifiers.transform.smoothquant import SmoothQuantModifier

    weights = QuantizationArgs(num_bits=bits, type="int", symmetric=True, strategy="channel")
    inputs = QuantizationArgs(num_bits=bits, type="int", symmetric=True, strategy="token", dynamic=True)
    scheme = QuantizationScheme(targets=["Linear"], weights=weights, input_activations=inputs)
    return [
        SmoothQuantModifier(smoothing_strength=alpha),
        QuantizationModifier(config_groups={"group_0": scheme}, ignore=["lm_head"]),
    ]


def gptqmodel(folder, **settings):
    """(GPTQModel's model in float32 with asymmetric grids, the calibration rows); nothing is quantised yet."""
    os.environ.setdefault("GPTQMODEL_CPU_WORKERS", "2")  # its pools refuse fewer
    from gptqmodel import GPTQModel, QuantizeConfig

    config = QuantizeConfig(
        sym=False, mse=0.0, damp_percent=0.01, act_group_aware=False, offload_to_disk=False, **settings
    )
    packing = GPTQModel.load(str(Path(folder) / "base"), config, dtype=torch.float32, device="cpu")
    return packing, [
        {"input_ids": row[None], "attention_mask": torch.ones_like(row[None])} for row in calibration(folder)
    ]


def quantize(packing, rows):
    """Let GPTQModel quantise on the rows in their order."""
    packing.quantize(rows, batch_size=1, calibration_sort=None)
