"""Tiny randomly initialised models of every supported architecture, and a tiny tokenizer: nothing is downloaded."""

import string
from collections.abc import Callable
from pathlib import Path

import torch
import transformers as hf

VOCABULARY = 128
SPECIAL = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
MERGES = (
    "t h",
    "h e",
    "i n",
    "e r",
    "a n",
    "r e",
    "o n",
    "th e",
    "a t",
    "e n",
    "o r",
    "n d",
    "s t",
    "e s",
    "a r",
    "a l",
    "o u",
    "i t",
    "i s",
    "an d",
    "in g",
    "  t",
    "  a",
    "  the",
    "o f",
    "  of",
    "i o",
    "io n",
)
IDS = {"vocab_size": VOCABULARY, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 3}
STOCK = """the of and in to a is was that for it with as his on be at by had not are but from or have an they which one
were all there would their when who more no if out so said what up its about into than them can only other new some
time could these two may then do first any my now such like our over man me even most made after also did many before
must through back years where much your way well down should because each just those people"""
WIDE = {"initializer_range": 0.15}  # large enough that heads, experts and tokens differ clearly


def _llama(blocks: int) -> hf.PreTrainedConfig:
    return hf.LlamaConfig(
        **IDS,
        **WIDE,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=blocks,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=True,
    )


def _gpt2(blocks: int) -> hf.PreTrainedConfig:
    return hf.GPT2Config(**IDS, **WIDE, n_embd=32, n_inner=64, n_layer=blocks, n_head=4, n_positions=512)


def _opt(blocks: int) -> hf.PreTrainedConfig:
    return hf.OPTConfig(
        **{**IDS, "pad_token_id": 1},
        init_std=0.15,
        hidden_size=32,
        ffn_dim=64,
        num_hidden_layers=blocks,
        num_attention_heads=4,
        max_position_embeddings=512,
        word_embed_proj_dim=32,
    )


def _gpt_neox(blocks: int) -> hf.PreTrainedConfig:
    return hf.GPTNeoXConfig(
        **IDS,
        **WIDE,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=blocks,
        num_attention_heads=4,
        max_position_embeddings=512,
        use_parallel_residual=True,
        tie_word_embeddings=False,
    )


def _qwen3(blocks: int) -> hf.PreTrainedConfig:
    return hf.Qwen3Config(
        **IDS,
        **WIDE,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=blocks,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=512,
        tie_word_embeddings=False,
    )


def _gemma2(blocks: int) -> hf.PreTrainedConfig:
    return hf.Gemma2Config(
        **IDS,
        **WIDE,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=blocks,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        query_pre_attn_scalar=8,
        sliding_window=8,
        final_logit_softcapping=5.0,
        max_position_embeddings=512,
    )


def _mixtral(blocks: int) -> hf.PreTrainedConfig:
    return hf.MixtralConfig(
        **IDS,
        **WIDE,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=blocks,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_local_experts=4,
        num_experts_per_tok=2,
        max_position_embeddings=512,
        tie_word_embeddings=False,
    )


def _mamba(blocks: int) -> hf.PreTrainedConfig:
    return hf.MambaConfig(
        **IDS,
        **WIDE,
        hidden_size=32,
        state_size=8,
        num_hidden_layers=blocks,
        expand=2,
        time_step_rank=4,
        use_mambapy=False,
    )


CONFIGS: dict[str, Callable[[int], hf.PreTrainedConfig]] = {
    "llama": _llama,
    "gpt2": _gpt2,
    "opt": _opt,
    "gpt_neox": _gpt_neox,
    "qwen3": _qwen3,
    "gemma2": _gemma2,
    "mixtral": _mixtral,
    "mamba": _mamba,
}
ARCHITECTURES = tuple(CONFIGS)


def build(architecture: str = "llama", blocks: int = 3, seed: int = 0, device: str = "cpu") -> hf.PreTrainedModel:
    """Return a float32 model in eval mode: 3 blocks of width 32, 128 tokens in the vocabulary.

    Gains and biases are moved off their initial 1 and 0, so that a method that forgets them is caught.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = hf.AutoModelForCausalLM.from_config(CONFIGS[architecture](blocks), dtype=torch.float32)
    for parameter in model.parameters():
        if parameter.dim() == 1:
            parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model.eval().to(device)


def tokens(windows: int = 4, length: int = 16, seed: int = 0, device: str = "cpu") -> torch.Tensor:
    """Return [windows, length] int64 random tokens, none of them special."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(4, VOCABULARY, (windows, length), generator=generator).to(device)


def tokenizer() -> hf.PreTrainedTokenizerFast:
    """Return a BPE tokenizer over printable ASCII with a few merges; decoding gives the text back."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    merges = [tuple(pair.rsplit(" ", 1)) if pair.startswith(" ") else tuple(pair.split(" ")) for pair in MERGES]
    words = [*SPECIAL.values(), *string.printable[:95], "\n", *("".join(pair) for pair in merges)]
    vocabulary = {word: index for index, word in enumerate(words)}
    bpe = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, unk_token="<unk>"))
    bpe.pre_tokenizer = pre_tokenizers.Split(" ", behavior="merged_with_next")
    bpe.decoder = decoders.Fuse()
    return hf.PreTrainedTokenizerFast(
        tokenizer_object=bpe, clean_up_tokenization_spaces=False, model_max_length=512, **SPECIAL
    )


def write_folder(folder: str | Path, architecture: str = "llama", blocks: int = 3, seed: int = 0) -> Path:
    """Write a model folder that plain transformers loads: config, safetensors, tokenizer. Returns the folder."""
    folder = Path(folder)
    build(architecture, blocks, seed).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def plain_text(articles: int = 8, words: int = 400, seed: int = 0) -> list[str]:
    """Return random English-looking articles for workflow tests: every one starts with another word."""
    generator = torch.Generator().manual_seed(seed)
    stock = STOCK.split()
    picks = torch.randint(0, len(stock), (articles, words), generator=generator).tolist()
    return [f"{index} " + " ".join(stock[i] for i in row) + ".\n" for index, row in enumerate(picks)]
