"""Turning a dense model into the mixture-of-experts architecture of transformers that matches it."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import MixtralConfig, PreTrainedConfig, PreTrainedModel, Qwen3MoeConfig

from hemorrhage.architecture import attachments, blocks, experts, randomness
from hemorrhage.architecture.auto import AutoModelForCausalLM
from hemorrhage.architecture.targets import find

MATCHES = {"llama": "mixtral", "mistral": "mixtral", "qwen3": "qwen3_moe"}
SHARED = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "hidden_act",
    "max_position_embeddings",
    "initializer_range",
    "rms_norm_eps",
    "pad_token_id",
    "bos_token_id",
    "eos_token_id",
    "tie_word_embeddings",
    "sliding_window",
    "rope_parameters",
    "attention_bias",
    "attention_dropout",
)


def unsuited(model: PreTrainedModel) -> str | None:
    """Return one sentence if no mixture of experts matches the model, else None."""
    config = model.config
    if config.model_type not in MATCHES:
        return (
            f"{type(model).__name__}: transformers has no mixture of experts that matches it; upcycling knows "
            f"{', '.join(sorted(MATCHES))}."
        )
    if getattr(config, "mlp_bias", False) or (
        MATCHES[config.model_type] == "mixtral" and getattr(config, "attention_bias", False)
    ):
        return f"{type(model).__name__}: it has biases that {MATCHES[config.model_type]} does not have."
    return None


@torch.no_grad()
def upcycle(model: PreTrainedModel, number: int, active: int, zeros: bool, sigma: float, seed: int) -> None:
    """Make ``model`` a mixture of ``number`` experts, in place.

    Raises ValueError if it cannot be one, or has attachments, which name what is no longer there.
    """
    reason = unsuited(model)
    if reason:
        raise ValueError(reason)
    if attachments.attached(model):
        raise ValueError("upcycle: an earlier step left attachments on the model; upcycling must come before it.")
    config = _config(model.config, number, active)
    with torch.device("meta"):
        new = AutoModelForCausalLM.from_config(config)
    weights = _weights(model, new, number, zeros, sigma, seed)
    _take_rotary(model, new)
    new.load_state_dict(weights, assign=True, strict=True)
    new.tie_weights()
    new.generation_config = model.generation_config
    _become(model, new.eval().requires_grad_(False))
    blocks.check(model)


def _config(dense: PreTrainedConfig, number: int, active: int) -> PreTrainedConfig:
    shared = {name: getattr(dense, name) for name in SHARED if hasattr(dense, name)}
    if MATCHES[dense.model_type] == "mixtral":
        shared.pop("attention_bias", None)
        return MixtralConfig(**shared, num_local_experts=number, num_experts_per_tok=active)
    return Qwen3MoeConfig(
        **shared,
        moe_intermediate_size=dense.intermediate_size,
        num_experts=number,
        num_experts_per_tok=active,
        norm_topk_prob=True,
        decoder_sparse_step=1,
        use_sliding_window=getattr(dense, "use_sliding_window", False),
    )


def _weights(
    model: PreTrainedModel, new: PreTrainedModel, number: int, zeros: bool, sigma: float, seed: int
) -> dict[str, Tensor]:
    """The state of the new model: shared weights as they are, experts as copies, the routers drawn."""
    old = {name: tensor.detach() for name, tensor in model.state_dict().items()}
    weights = {}
    for name, tensor in new.state_dict().items():
        home, _, leaf = name.rpartition(".mlp.")
        if name in old:
            weights[name] = old[name]
        elif leaf == "experts.gate_up_proj":
            both = torch.cat([old[f"{home}.mlp.gate_proj.weight"], old[f"{home}.mlp.up_proj.weight"]])
            weights[name] = both.expand(number, -1, -1).clone()
        elif leaf == "experts.down_proj":
            weights[name] = old[f"{home}.mlp.down_proj.weight"].expand(number, -1, -1).clone()
        else:
            like = torch.empty(tensor.shape, dtype=model.dtype, device=model.device)
            spread = 0.0 if zeros else float(model.config.initializer_range)
            weights[name] = spread * randomness.normal(like, f"{seed} {name}")
        if sigma and leaf.startswith("experts."):
            for index in range(number):
                weights[name][index] = randomness.noisy(weights[name][index], sigma, f"{seed} {name} {index}")
    return weights


def _take_rotary(model: PreTrainedModel, new: PreTrainedModel) -> None:
    """Buffers that no checkpoint holds, such as rotary frequencies, are still on the meta device: take the old ones."""
    old = dict(model.named_modules())
    for name, module in new.named_modules():
        for attribute, buffer in module.named_buffers(recurse=False):
            if buffer.is_meta:
                setattr(module, attribute, getattr(old[name], attribute))


def _become(model: PreTrainedModel, new: PreTrainedModel) -> None:
    """Make the caller's object the new model: whoever holds it holds the mixture now."""
    model.__class__ = type(new)
    model.__dict__.clear()
    model.__dict__.update(new.__dict__)
    if not any(experts.is_fused(target.module) for target in find(model)):
        raise ValueError(f"{type(model).__name__}: its experts are not fused as transformers marks them.")
