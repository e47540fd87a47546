"""A tiny GGUF file, written with the gguf package."""

import numpy as np
import torch
from transformers.convert_slow_tokenizer import bytes_to_unicode


def write(path, quantized=True):
    """Write a GGUF of a tiny Llama: Q4_1 matrices in its blocks, a byte-level tokenizer; returns the dense matrices."""
    import gguf

    width, wide, vocabulary, generator = 32, 64, 261, np.random.default_rng(0)
    writer = gguf.GGUFWriter(path, "llama")
    for name, value in {
        "context_length": 64,
        "embedding_length": width,
        "block_count": 1,
        "feed_forward_length": wide,
        "head_count": 2,
        "head_count_kv": 2,
        "vocab_size": vocabulary,
    }.items():
        getattr(writer, f"add_{name}")(value)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    words = ["<none>", "<start>", "<end>", *bytes_to_unicode().values(), "Ġa", "Ġb"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(words)
    writer.add_token_types([3, 3, 3] + [1] * (vocabulary - 3))
    writer.add_token_merges(["Ġ a", "Ġ b"])  # of a single one transformers reads a wrong type
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(2)
    writer.add_unk_token_id(0)
    shapes = {
        "token_embd": (vocabulary, width),
        "output_norm": (width,),
        "blk.0.attn_norm": (width,),
        "blk.0.ffn_norm": (width,),
        **{f"blk.0.attn_{x}": (width, width) for x in ("q", "k", "v", "output")},
        "blk.0.ffn_gate": (wide, width),
        "blk.0.ffn_up": (wide, width),
        "blk.0.ffn_down": (width, wide),
    }
    dense = {}
    for name, shape in shapes.items():
        weight = generator.normal(size=shape).astype(np.float32)
        packed, kind = weight, gguf.GGMLQuantizationType.F32
        if quantized and len(shape) == 2:
            kind = gguf.GGMLQuantizationType.Q4_1
            packed = gguf.quants.quantize(weight, kind)
            weight = gguf.quants.dequantize(packed, kind)
        writer.add_tensor(f"{name}.weight", packed, raw_dtype=kind)
        dense[name] = torch.from_numpy(weight.copy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return dense
