"""Slicing the residual stream: one rotation for all blocks, of which only the first directions are kept.

An RMS norm without gain commutes with a rotation, so the gains go into the matrices that read the norms, and every
matrix that reads or writes the stream is multiplied by the rotation: the function is the same. With directions left
out, the norms of the narrower model divide by the mean over fewer channels; their one constant gain √(d/d') makes up
for that. Embedding and head are rotated too, and are two matrices afterwards, because only the head takes the gain of
the final norm.
"""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from hemorrhage.activations import chunked, watching
from hemorrhage.architecture import attachments, norms, targets, widths, writers

EPSILON = 1e-12  # a token whose stream is 0 has no direction


def unsuited(model: PreTrainedModel) -> str | None:
    """Return why the stream of an architecture cannot be rotated, None if it can."""
    name, depth = type(model).__name__, len(targets.blocks(model)[1])
    if any(target.kind == "expert" for target in targets.find(model)):
        return f"{name}: routers and fused experts read its stream, which are no matrices that can be sliced."
    found = readers_of_stream(model)
    if any(norms.subtracts_mean(norm.module) or getattr(norm.module, "bias", None) is not None for norm in found):
        return f"{name}: its layer norms subtract the mean, which no rotation of the stream leaves as it is."
    if [norm.serves for norm in found] != ["attention", "mlp"] * depth + ["final"]:
        return f"{name}: its blocks do not have exactly one norm before each part, so its gains cannot be moved."
    tokens = torch.arange(2, device=model.device)[None]
    embedding: Any = model.get_input_embeddings()
    with torch.no_grad():
        entry = chunked.catch(model, (tokens,))[1][0]
    if not torch.equal(entry, embedding.weight[tokens]):
        return f"{name}: its first block does not read the plain embedding, so the two cannot be sliced alike."
    return None


def readers_of_stream(model: PreTrainedModel) -> list[norms.Norm]:
    """Return the norms that read the residual stream, in the order in which they run."""
    return [norm for norm in norms.find_norms(model) if norm.serves != "query_key"]


@torch.no_grad()
def directions(model: PreTrainedModel, tokens: Tensor, chunk: int | None = None) -> tuple[Tensor, Tensor]:
    """Return (Q [d, d], variance [d]): the principal directions of the stream, the largest first, in float64.

    Every token counts the same wherever a norm reads it, as it does for what comes after the norm. Signs are fixed: the
    largest entry of a direction is positive.

    Raises ValueError if the stream is not finite.
    """
    found = readers_of_stream(model)
    width = found[0].module.weight.numel()
    total = torch.zeros(width, width, dtype=torch.float64, device=model.device)

    def watch(_module: nn.Module, args: tuple[Tensor, ...]) -> None:
        x = args[0].reshape(-1, width).float()
        x = x / (x.square().mean(-1, keepdim=True) + EPSILON).sqrt()
        total.add_((x.T @ x).double())

    with contextlib.ExitStack() as stack:
        for norm in found:
            stack.callback(norm.module.register_forward_pre_hook(watch).remove)
        for part in tokens.split(chunk or len(tokens)):
            model.base_model(part, use_cache=False)
    if not bool(torch.isfinite(total).all()):
        raise ValueError("the stream is not finite on the calibration tokens; the model cannot be modified.")
    values, vectors = torch.linalg.eigh(total / (len(found) * tokens.numel()))
    vectors = vectors.flip(1)
    largest = vectors.gather(0, vectors.abs().argmax(0, keepdim=True))
    return vectors * largest.sign(), values.flip(0).clamp_(min=0)


@torch.no_grad()
def rotate(model: PreTrainedModel, kept: Tensor) -> None:
    """Rewrite a model for the stream x·Q with Q = ``kept`` [d, d'], orthonormal columns, and d' as its hidden size.

    Raises ValueError if quantizers were put on the model before, or its config cannot say the new width.
    """
    if any(spec["kind"] == "activation_quantizer" for spec in attachments.attached(model)):
        raise ValueError("a step before this one rounds activations in the old directions; slice first.")
    width, left = kept.shape
    made = {norm.name: norm for norm in readers_of_stream(model)}
    written = {id(writer.module) for writer in writers.find(model)}
    writing = [target for target in targets.find(model) if id(target.module) in written]
    config: Any = model.config.get_text_config()
    config.head_dim = getattr(config, "head_dim", None) or width // config.num_attention_heads
    plan = watching.discover(model, torch.arange(watching.TOKENS, device=model.device)[None])
    for group in (group for block in plan for group in block if group.producer in made):
        gain = _gain(made[str(group.producer)].module)
        for target in group.targets:
            widths.put(target, (target.weight.double() * gain) @ kept)
    for target in writing:
        widths.put(target, kept.T @ target.weight.double())
        bias: Any = getattr(target.module, "bias", None)
        if bias is not None:
            target.module.bias = _parameter(kept.T @ bias.double(), bias)
    _rotate_ends(model, kept, _gain(list(made.values())[-1].module))
    for norm in made.values():
        constant = torch.full((left,), (width / left) ** 0.5 - norms.offset(norm.module))
        norm.module.weight = _parameter(constant, norm.module.weight)
    config.hidden_size = left
    widths.adopt(model)


def _rotate_ends(model: PreTrainedModel, kept: Tensor, gain: Tensor) -> None:
    """Rotate embedding and head, and untie them: the head alone takes the gain of the final norm."""
    embedding: Any = model.get_input_embeddings()
    head: Any = model.get_output_embeddings()
    weight, old = embedding.weight, head.weight
    head.weight = _parameter((old.double() * gain) @ kept, old)
    embedding.weight = _parameter(weight.double() @ kept, weight)
    for config in {id(each): each for each in (model.config, model.config.get_text_config())}.values():
        config.tie_word_embeddings = False
    model.all_tied_weights_keys = {}


def _gain(module: Any) -> Tensor:
    return module.weight.double() + norms.offset(module)


def _parameter(values: Tensor, like: Tensor) -> nn.Parameter:
    return nn.Parameter(values.to(like.device, like.dtype).contiguous(), requires_grad=like.requires_grad)
