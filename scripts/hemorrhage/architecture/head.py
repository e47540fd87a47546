"""The head: from the input of the output embedding to logits, the same way for the reference and for every variant."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from hemorrhage.architecture import attachments
from hemorrhage.architecture.auto import AutoConfig, AutoModelForCausalLM

MULTIPLIERS = ("logit_scale", "lm_head_multiplier", "output_multiplier")
DIVISOR = "logits_scaling"
TOLERANCE = 1e-4  # of the largest logit; what float32 rounding in another order can do


@dataclasses.dataclass
class Head:
    """The output embedding and what the architecture does after it.

    Attributes:
        weight: [V, d] in the model's dtype.
        bias: [V] or None.
        scale: factor on the logits, before the soft-cap.
        softcap: c of c·tanh(logits / c), or None.
        factor: factor of the logit_scale attachments, after the soft-cap.
    """

    weight: torch.Tensor
    bias: torch.Tensor | None = None
    scale: float = 1.0
    softcap: float | None = None
    factor: float = 1.0

    @classmethod
    def of(cls, model: PreTrainedModel) -> Head:
        """Return the head of a model, attachments included. Its tensors are the model's own, not copies."""
        layer = model.get_output_embeddings()
        if not isinstance(layer, nn.Linear):
            raise ValueError(f"{type(model).__name__} has no dense output embedding; only causal LMs are supported.")
        bias = None if layer.bias is None else layer.bias.detach()
        specs = attachments.attached(model)
        return cls(layer.weight.detach(), bias, *_after(model.config), factor=attachments.logit_factor(specs))

    @classmethod
    def load(cls, folder: str | Path, dtype: torch.dtype, device: str | torch.device) -> Head:
        """Return the head of a checkpoint folder; only its tensors are read where the folder tells them apart.

        Args:
            folder: a Hugging Face folder; attachments are read from its ``hemorrhage.json`` if there is one.
            dtype: dtype of the model it belongs to.
            device: where its tensors go.

        Raises:
            OSError: if the folder or its weights cannot be read.
        """
        folder = Path(folder)
        if not (folder / "config.json").exists():
            raise OSError(f"{folder}: there is no config.json; a Hugging Face model folder is needed.")
        config = AutoConfig.from_pretrained(folder)
        record = folder / "hemorrhage.json"
        specs = json.loads(record.read_text()).get("attachments", []) if record.exists() else []
        tensors = _read(folder, config)
        if tensors is None:
            whole = cls.of(AutoModelForCausalLM.from_pretrained(folder, dtype=dtype))
            tensors = whole.weight, whole.bias
        weight, bias = tensors
        bias = None if bias is None else bias.to(device, dtype)
        return cls(weight.to(device, dtype), bias, *_after(config), factor=attachments.logit_factor(specs))

    def __call__(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return float32 logits [.., V] of ``hidden`` [.., d]: made in the model's dtype as the model makes them."""
        hidden = hidden.to(self.weight.device, self.weight.dtype)
        logits = nn.functional.linear(hidden, self.weight, self.bias)
        if self.scale != 1.0:
            logits = logits * self.scale
        if self.softcap is not None:
            logits = torch.tanh(logits / self.softcap) * self.softcap
        if self.factor != 1.0:
            logits = logits * self.factor
        return logits.float()


def hidden_states(model: PreTrainedModel, tokens: torch.Tensor) -> torch.Tensor:
    """Return the input of the output embedding, [b, L, d] in the model's dtype, for tokens [b, L] int64."""
    with torch.no_grad():
        out = model.base_model(input_ids=tokens.to(model.device), use_cache=False).last_hidden_state
    return out.to(model.get_output_embeddings().weight.dtype)  # Mamba keeps its residual in float32


def check(model: PreTrainedModel, tokens: torch.Tensor | None = None) -> None:
    """Raise ValueError if the head does not give the model's own logits, in the dtype in which it is loaded.

    Args:
        model: a causal LM with its attachments.
        tokens: [b, L] int64 to compare on; by default the first 16 of the vocabulary.
    """
    if tokens is None:
        tokens = torch.arange(min(16, model.config.get_text_config().vocab_size))[None]
    tokens = tokens.to(model.device)
    with torch.no_grad():
        wanted = model(input_ids=tokens, use_cache=False).logits.float()
    given = Head.of(model)(hidden_states(model, tokens))
    rounding = max(TOLERANCE, 4 * torch.finfo(model.dtype).eps)
    worst = (given - wanted).abs().max().item() if given.shape == wanted.shape else float("inf")
    if not worst <= rounding * max(1.0, wanted.abs().max().item()):
        raise ValueError(
            f"{type(model).__name__}: logits made from the input of its output embedding differ from the "
            f"model's own by {worst:.2g}; this architecture does something else after its base model and "
            "is not supported."
        )


def _after(config: PreTrainedConfig) -> tuple[float, float | None]:
    """Return (scale, soft-cap) of an architecture, as its config tells them."""
    text = config.get_text_config()
    scale = 1.0
    for name in MULTIPLIERS:
        scale *= getattr(text, name, None) or 1.0
    divisor = getattr(text, DIVISOR, None) or 1.0
    # HyperCLOVA X uses the name of Granite's divisor for a factor
    scale = scale * divisor if text.model_type == "hyperclovax" else scale / divisor
    return scale, getattr(text, "final_logit_softcapping", None)


def _read(folder: Path, config: PreTrainedConfig) -> tuple[torch.Tensor, torch.Tensor | None] | None:
    """Return (weight, bias) of the output embedding from safetensors files, None if they cannot be told apart."""
    from safetensors import safe_open

    files = _files(folder)
    names = _names(config)
    if names is None or hasattr(config, "quantization_config"):
        return None
    name = next((name for name in (*names, *_outside(files, names[2])) if name in files), None)
    if name is None:
        return None
    found = []
    for key in (name, names[0].removesuffix("weight") + "bias"):
        if key in files:
            with safe_open(folder / files[key], framework="pt") as handle:
                found.append(handle.get_tensor(key))
    return found[0], (found[1] if len(found) > 1 else None)


def _outside(files: dict[str, str], base: str) -> list[str]:
    """The one weight outside the base model, if there is one: some files keep an older name (GPT-NeoX: embed_out)."""
    outside = [name for name in files if not name.startswith(f"{base}.") and name.endswith(".weight")]
    return outside if len(outside) == 1 and len(files) > 1 else []


def _files(folder: Path) -> dict[str, str]:
    """Return the file of every tensor in the folder."""
    from safetensors import safe_open

    index = folder / "model.safetensors.index.json"
    if index.exists():
        return json.loads(index.read_text())["weight_map"]
    single = folder / "model.safetensors"
    if not single.exists():
        return {}
    with safe_open(single, framework="pt") as handle:
        return dict.fromkeys(handle.keys(), single.name)


def _names(config: PreTrainedConfig) -> tuple[str, str, str] | None:
    """Return the names of the output embedding's weight, of the weight it is tied to (or itself), of the base model."""
    try:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
    except (ValueError, RuntimeError, NotImplementedError):
        return None
    places = {id(module): name for name, module in model.named_modules()}
    output, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    if output is None or embedding is None:
        return None
    names = [f"{places[id(module)]}.weight" for module in (output, embedding)]
    tied = output.weight is embedding.weight
    return names[0], names[1] if tied else names[0], model.base_model_prefix
