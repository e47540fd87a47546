"""What a modification reads beside the model, made of a tiny reference instead of the files of a run."""

from __future__ import annotations

import dataclasses
import tempfile
from functools import cached_property
from pathlib import Path

import torch

import tiny
from hemorrhage.activations import gradients
from hemorrhage.architecture.head import Head, hidden_states
from hemorrhage.modification_data import FitReference


@dataclasses.dataclass
class TinyData:
    """The interface of ``ModificationData`` over random tokens and the unchanged tiny model."""

    architecture: str = "llama"
    device: str = "cpu"
    chunk: int | None = None
    seed: int = 1
    dtype: str = "float32"

    @cached_property
    def base(self) -> Path:
        """The reference's folder."""
        self._folder = tempfile.TemporaryDirectory()
        return tiny.write_folder(Path(self._folder.name), self.architecture)

    @cached_property
    def reference(self):
        """The unchanged model."""
        return tiny.build(self.architecture, device=self.device)

    def tokens(self, name: str) -> torch.Tensor:
        """Calibration tokens; every name is another set."""
        return tiny.tokens(8, 24, seed=sum(name.encode()), device=self.device)

    def gradients(self, name: str, norm: str) -> dict[str, torch.Tensor]:
        """Gradients of the unchanged model."""
        return gradients.collect(tiny.build(self.architecture, device=self.device), self.tokens(name), norm)

    @cached_property
    def fit(self) -> FitReference:
        """The reference on fit tokens."""
        tokens = tiny.tokens(6, 24, seed=99, device=self.device)
        return FitReference(tokens, hidden_states(self.reference, tokens), Head.of(self.reference))
