"""The protocol: how a text becomes windows and which positions of them are scored.

It is part of every record, since perplexities under two protocols cannot be compared: the same model has been
published with 5.12, 5.47 and 6.2 on the same text. Only the standard library is used.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from hemorrhage.settings import require, whole

SCORED = ("all", "second_half", "new")
JOININGS = ("article", "contiguous")
PREFIXES = ("none", "previous")
TAILS = ("drop", "shift")
DTYPES = ("float32", "bfloat16", "float16", "float64")


@dataclasses.dataclass(frozen=True)
class Protocol:
    """How windows are cut and scored. Raises ValueError naming the setting, the value and what is allowed.

    Attributes:
        window: text tokens in a window.
        stride: text tokens from one window's start to the next; None for ``window``, windows that do not overlap.
        scored: "all": every position that has a predecessor in its window; "second_half": the positions
            window/2+1 … window-1, as llama.cpp's perplexity tool does; "new": the positions that no earlier window
            of the set holds.
        bos: put the tokenizer's BOS in front of every window. It replaces no text token: the model sees
            window + 1 tokens, and the first text token is scored too.
        joining: "article": every window from another article, from its start; "contiguous": windows of all articles
            joined by an empty line and tokenized once.
        prefix: "previous": in front of every window stands the text token before it, as context that is not scored;
            in front of a text's first token the tokenizer's BOS, or its EOS if it has no BOS. The model sees
            window + 1 tokens, and every text token of the window is scored.
        tail: of a contiguous text whose last piece is shorter than a window. "drop": it is left out. "shift": a last
            window that ends with the text scores the tokens that no window before it holds.
        dtype: of weights and activations while measuring.
    """

    window: int = 256
    stride: int | None = None
    scored: str = "all"
    bos: bool = False
    joining: str = "article"
    prefix: str = "none"
    tail: str = "drop"
    dtype: str = "float32"

    def __post_init__(self) -> None:
        object.__setattr__(self, "window", whole("window", self.window, 2))
        stride = self.window if self.stride is None else self.stride
        object.__setattr__(self, "stride", whole("stride", stride, 1, self.window))
        require(self.scored, SCORED, "protocol.scored")
        require(self.joining, JOININGS, "protocol.joining")
        require(self.prefix, PREFIXES, "protocol.prefix")
        require(self.tail, TAILS, "protocol.tail")
        require(self.dtype, DTYPES, "protocol.dtype")
        if not isinstance(self.bos, bool):
            raise ValueError(f"protocol.bos: {self.bos!r} is neither true nor false.")
        if self.bos and self.prefix != "none":
            raise ValueError("protocol.prefix: previous and a BOS cannot both stand in front of a window; drop one.")
        if self.tail == "shift" and self.joining == "article":
            raise ValueError("protocol.tail: shift is for contiguous text; windows of single articles have no tail.")
        if self.joining == "article" and self.stride != self.window:
            raise ValueError(
                f"protocol.stride: {self.stride} differs from the window of {self.window}, but windows "
                "of different articles do not overlap; leave it out, or set joining to contiguous."
            )

    @property
    def length(self) -> int:
        """Tokens that the model sees: the window, and what stands in front of it."""
        return self.window + self.lead

    @property
    def lead(self) -> int:
        """Tokens in front of the window's own: BOS, or the token before it."""
        return int(self.bos or self.prefix != "none")

    @property
    def slug(self) -> str:
        """One word that holds every setting; rows with different slugs never stand in one curve."""
        more = ("-bos" if self.bos else "") + ("-previous" if self.prefix != "none" else "")
        more += "-shift" if self.tail == "shift" else ""
        return f"{self.joining}-{self.window}-{self.stride}-{self.scored}{more}-{self.dtype}"

    def as_dict(self) -> dict[str, object]:
        """The settings as builtin values."""
        return dataclasses.asdict(self)

    def first_scored(self, is_first_window: bool) -> int:
        """Return the first scored position of a window of ``length`` tokens; the scored ones run to its end."""
        if self.scored == "second_half":
            return self.lead + self.window // 2 + 1
        if self.scored == "new" and not is_first_window:
            return max(1, self.length - int(self.stride or self.window))
        return 1

    @classmethod
    def of(cls, value: str | Mapping[str, object], **settings: object) -> Protocol:
        """Return a protocol by name or from settings; ``settings`` replace single ones.

        Raises ValueError for an unknown name or setting, with the nearest known one.
        """
        if isinstance(value, str):
            require(value, NAMED, "protocol")
            value = NAMED[value].as_dict()
        for key in {**value, **settings}:
            require(key, [field.name for field in dataclasses.fields(cls)], "protocol setting")
        return cls(**{**value, **settings})  # type: ignore[arg-type]


NAMED = {
    # GPTQ, SparseGPT, Wanda: articles joined, windows of 2048, every prediction inside a window.
    "gptq-2048": Protocol(window=2048, joining="contiguous"),
    # llama-perplexity with its default context and no BOS in the vocabulary's settings.
    "llamacpp-half-512": Protocol(window=512, scored="second_half", joining="contiguous"),
    # The strided loop of the transformers documentation, at its stride of half the window. The loop's last window may
    # be shorter than the others; that piece is dropped here.
    "hf-strided": Protocol(window=1024, stride=512, scored="new", joining="contiguous"),
    # lm-evaluation-harness, loglikelihood_rolling with a context of one token: every token of the text once, the first
    # after a prefix token, the tokens of the last piece in a window that ends with the text.
    "lm-eval-rolling": Protocol(window=2048, joining="contiguous", prefix="previous", tail="shift"),
}
