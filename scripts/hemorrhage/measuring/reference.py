"""The reference on one token set: computed once, read by every probe of every variant.

Instead of logits the input of the output embedding is kept for every token (d numbers instead of one per vocabulary
entry); a probe makes the logits again, a few positions at a time. Two floors stand beside it, each a mean KL in nats:
``floor_batch``, the same weights in another batch composition, and ``floor_bf16``, the same weights rounded to
bfloat16 and back. A difference near a floor is the instrument's, not the modification's.
"""

from __future__ import annotations

import copy
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from hemorrhage import files
from hemorrhage.architecture.head import Head, check, hidden_states
from hemorrhage.measuring import comparison

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from hemorrhage.corpus.tokens import TokenSet

HIDDEN, ARRAYS, RECORD = "hidden.npy", "nll.npz", "reference.json"


class Hidden:
    """Inputs of the output embedding [B, L, d] on disk; indexing windows gives a tensor of the model's dtype.

    numpy has no bfloat16, so 16-bit floats lie on disk as their bits.
    """

    def __init__(self, path: str | os.PathLike, dtype: torch.dtype) -> None:
        """Map the file; nothing is read until windows are asked for."""
        self._array = np.load(path, mmap_mode="c")  # copy-on-write: torch wants memory that it may write to
        self.dtype = dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """[B, L, d]."""
        return self._array.shape

    def __getitem__(self, windows: int | slice) -> torch.Tensor:
        """Return the windows' [.., L, d]."""
        return torch.from_numpy(self._array[windows]).view(self.dtype)


@dataclass(frozen=True)
class Reference:
    """A measured reference.

    Attributes:
        hidden: inputs of the output embedding, memory-mapped; ``hidden[a:b]`` is a tensor [b - a, L, d].
        nll: [B, L] negative log-likelihood of each token in nats, nan where it is not scored.
        confidence: [B, L] probability of the most probable token, nan where nothing is scored.
        floors: mean KL in nats by floor.
        tokens_hash: of the token set it was measured on.
    """

    hidden: Hidden
    nll: np.ndarray
    confidence: np.ndarray
    floors: dict[str, float]
    tokens_hash: str

    @classmethod
    def open(cls, folder: str | os.PathLike) -> Reference:
        """Open what ``measure`` wrote."""
        folder = Path(folder)
        record = files.read_json(folder / RECORD)
        with np.load(folder / ARRAYS, allow_pickle=False) as arrays:
            nll, confidence = arrays["nll"], arrays["confidence"]
        floors = {name: float(value) for name, value in record["floors"].items()}
        hidden = Hidden(folder / HIDDEN, getattr(torch, record["dtype"]))
        return cls(hidden, nll, confidence, floors, record["tokens"])


def measure(model: PreTrainedModel, tokens: TokenSet, folder: str | os.PathLike, batch: int) -> None:
    """Run the reference over ``tokens`` and write hidden.npy, nll.npz and reference.json into ``folder``.

    The model is left as it was; a rounded copy of it exists for a while.

    Args:
        model: the reference.
        tokens: the windows.
        folder: made if missing.
        batch: windows in one forward pass.

    Raises:
        ValueError: the head cannot be applied apart from the model, or the reference itself is not finite.
    """
    folder, head = Path(folder), Head.of(model)
    with files.atomic(folder / HIDDEN) as part:
        _write_hidden(model, tokens, part, batch)
    hidden = Hidden(folder / HIDDEN, model.dtype)
    # The other composition also gives the reference's own side: one comparison instead of two.
    other = comparison.compare(head, hidden, model, tokens, 1 if batch > 1 else 2)
    broken = int(np.nansum(other["nonfinite"]))
    if broken:
        raise ValueError(
            f"The reference has no finite prediction at {broken} of {int(tokens.scored.sum())} scored "
            "positions; measure it in float32, or use another model."
        )
    check(model)  # after the search for broken positions, which would look like a head that does not fit
    rounded = comparison.compare(head, hidden, _rounded(model), tokens, batch)
    files.write_arrays(folder / ARRAYS, nll=other["reference_nll"], confidence=other["confidence"])
    files.write_json(
        folder / RECORD,
        {
            "tokens": tokens.hash,
            "dtype": str(model.dtype).removeprefix("torch."),
            "batch": batch,
            "shape": hidden.shape,
            "floors": {"floor_batch": _mean_kl(other), "floor_bf16": _mean_kl(rounded)},
        },
    )


def _write_hidden(model: PreTrainedModel, tokens: TokenSet, path: Path, batch: int) -> None:
    """Fill a .npy with the inputs of the output embedding, batch after batch."""
    array = None
    for start in range(0, len(tokens.tokens), batch):
        ids = torch.as_tensor(tokens.tokens[start : start + batch], dtype=torch.long, device=model.device)
        hidden = hidden_states(model, ids).cpu()
        values = (hidden.view(torch.int16) if hidden.dtype == torch.bfloat16 else hidden).numpy()
        if array is None:
            shape = (*tokens.tokens.shape, values.shape[-1])
            array = np.lib.format.open_memmap(path, mode="w+", dtype=values.dtype, shape=shape)
        array[start : start + batch] = values
    if array is None:
        raise ValueError("The token set has no windows.")
    array.flush()


def _rounded(model: PreTrainedModel) -> PreTrainedModel:
    """A copy with every weight rounded to bfloat16 and back."""
    rounded = copy.deepcopy(model)
    for parameter in rounded.parameters():
        parameter.data = parameter.data.to(torch.bfloat16).to(parameter.dtype)
    return rounded


def _mean_kl(compared: dict[str, np.ndarray]) -> float:
    return float(np.nanmean(compared["kl"], dtype=np.float64))
