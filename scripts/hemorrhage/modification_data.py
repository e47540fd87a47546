"""What a modification may read beside the model: calibration tokens, gradients, the reference on the fit text.

A method declares what it needs and never loads any of it itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hemorrhage import files, plugins

if TYPE_CHECKING:
    import torch

    from hemorrhage.architecture.head import Head


@dataclass(frozen=True)
class FitReference:
    """The reference on the fit text.

    Attributes:
        tokens: [N, L] token ids.
        hidden: [N, L, d] inputs of the reference's output embedding.
        head: the reference's output embedding.
    """

    tokens: torch.Tensor
    hidden: torch.Tensor
    head: Head


@dataclass(frozen=True)
class ModificationData:
    """The files of one model, opened when a step asks for them.

    Attributes:
        model_dir: the model's result folder, with base/, tokens/, gradients/, reference/.
        dtype: name of the dtype in which weights are loaded and measured.
        device: where.
        seed: the study's seed.
        chunk: calibration sequences in one forward pass; None for all at once.
        trusted: names of sources that may bring pickled weights or code of their own.
    """

    model_dir: Path
    dtype: str = "float32"
    device: str = "cpu"
    seed: int = 1
    chunk: int | None = None
    trusted: tuple[str, ...] = ()

    @property
    def base(self) -> Path:
        """The reference's checkpoint folder."""
        return Path(self.model_dir) / "base"

    def tokens(self, name: str) -> torch.Tensor:
        """Return calibration set ``name``: [N, L] int64 token ids on the device."""
        return self._tokens(f"calibration.{name}")

    def gradients(self, name: str, norm: str) -> dict[str, torch.Tensor]:
        """Return per target name the aggregated gradient magnitude [out, in] over calibration set ``name``."""
        from safetensors.torch import load_file

        return load_file(self._gradients_path(name, norm), device=self.device)

    @cached_property
    def reference_head(self) -> Head:
        """The reference's output embedding, read without the rest of the model."""
        import torch

        from hemorrhage.architecture.head import Head

        return Head.load(self.base, getattr(torch, self.dtype), self.device)

    @cached_property
    def fit(self) -> FitReference:
        """The reference on the fit text."""
        from hemorrhage.measuring.reference import Reference

        reference = Reference.open(Path(self.model_dir) / "reference" / "fit")
        hidden = reference.hidden[:].to(self.device)
        return FitReference(self._tokens("fit"), hidden, self.reference_head)

    def digests(self, recipe: list[dict[str, Any]]) -> dict[str, str]:
        """Return digests of everything that the steps of ``recipe`` read, by name: a part of the cache key."""
        found = {
            "base": files.digest(self.base / "hemorrhage.json"),
            "dtype": self.dtype,
            "seed": str(self.seed),
            "chunk": str(self.chunk),
        }
        for step in recipe:
            plugin, settings = plugins.get("modifications", step["method"]), step["settings"]
            needs = plugin.module.NEEDS
            if hasattr(plugin.module, "identify"):
                found[step["method"]] = plugin.module.identify(plugin.settings(settings))
            if "calibration" in needs:
                found[f"calibration.{settings['calibration']}"] = files.digest(
                    self._tokens_path(f"calibration.{settings['calibration']}")
                )
            if "gradients" in needs:
                path = self._gradients_path(settings["calibration"], settings["norm"])
                found[path.name] = files.digest(path)
            if "fit_reference" in needs:
                found["fit"] = files.digest(self._tokens_path("fit"))
        return found

    def _tokens_path(self, name: str) -> Path:
        return Path(self.model_dir) / "tokens" / f"{name}.npz"

    def _gradients_path(self, name: str, norm: str) -> Path:
        return Path(self.model_dir) / "gradients" / f"calibration.{name}.{norm}.safetensors"

    def _tokens(self, name: str) -> torch.Tensor:
        import torch

        from hemorrhage.corpus.tokens import TokenSet

        return torch.as_tensor(TokenSet.load(self._tokens_path(name)).tokens, dtype=torch.long, device=self.device)
