"""What a GGUF file says about itself: its weight types, and the parts of its tokenizer that a conversion loses."""

from __future__ import annotations

import os
import struct
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

UNQUANTIZED = frozenset({"F32", "F16", "BF16", "F64"})
# Tokenizers (``tokenizer.ggml.pre``) that split numbers into digits before byte-level BPE; transformers' conversion
# leaves that step out, which changes tokens around digits and fractions.
DIGIT_SPLITTING = frozenset({"smollm", "starcoder", "refact", "command-r", "codeshell", "exaone"})
_SPECIAL = {"bos": "bos_token", "eos": "eos_token", "unknown": "unk_token", "padding": "pad_token"}


@dataclass(frozen=True)
class GGUFFacts:
    """Facts of a GGUF file.

    Attributes:
        weight_types: number of weights in matrices by type ("Q4_1"), most frequent first.
        special: per attribute of a tokenizer ("eos_token") the token id that the file gives it.
        pre_tokenizer: name of the splitting before BPE, or "".
    """

    weight_types: dict[str, int]
    special: dict[str, int]
    pre_tokenizer: str

    @property
    def baseline(self) -> str:
        """What a dense model made from it is: "dense", or "dequantised Q4_1" by the most frequent type."""
        first = next(iter(self.weight_types), "F32")
        return "dense" if set(self.weight_types) <= UNQUANTIZED else f"dequantised {first}"


def read(path: str | os.PathLike) -> GGUFFacts:
    """Return the facts of a file without reading its weights. Raises ValueError if it is no readable GGUF."""
    from gguf import GGUFReader

    try:
        reader = GGUFReader(Path(path))
    except (ValueError, IndexError, KeyError, OverflowError, struct.error) as error:
        raise ValueError(f"{path}: not a readable GGUF file ({error}); fetch or convert it again.") from None
    types: Counter[str] = Counter()
    for tensor in reader.tensors:
        if len(tensor.shape) > 1:
            types[tensor.tensor_type.name] += int(tensor.n_elements)
    special = {
        attribute: int(_value(reader, f"tokenizer.ggml.{name}_token_id"))
        for name, attribute in _SPECIAL.items()
        if f"tokenizer.ggml.{name}_token_id" in reader.fields
    }
    return GGUFFacts(dict(types.most_common()), special, str(_value(reader, "tokenizer.ggml.pre") or ""))


def correct_tokenizer(tokenizer: PreTrainedTokenizerBase, facts: GGUFFacts) -> None:
    """Give a converted tokenizer the special tokens and the splitting of digits that its GGUF file names."""
    from tokenizers import pre_tokenizers

    for attribute, token_id in facts.special.items():
        setattr(tokenizer, attribute, tokenizer.convert_ids_to_tokens(token_id))
    # Else decoding drops spaces before punctuation, and text does not come back as it was.
    tokenizer.clean_up_tokenization_spaces = False
    if facts.pre_tokenizer in DIGIT_SPLITTING:
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Digits(individual_digits=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
            ]
        )


def _value(reader: Any, key: str) -> Any:
    field = reader.fields.get(key)
    return field.contents() if field is not None else None
