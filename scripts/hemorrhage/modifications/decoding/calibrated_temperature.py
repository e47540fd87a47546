"""Calibrated temperature: one factor on the logits that brings the distributions closest to the reference's.

The factor β = 1/T minimises the mean KL(reference ‖ softmax(βz)) on the first half of the fit windows. The second half
decides: the factor is attached only if it lowers the KL there as well, else the model is left alone (at 3 bits a
factor fitted on 1 024 tokens raised the KL on held-out text). It cannot change the most likely token, so greedy text
stays the same. It costs one pass over the fit text and a few passes through the head.

Temperature scaling of Guo et al., On Calibration of Modern Neural Networks, 2017 (arXiv 1706.04599), with the
reference's distribution in the place of labels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

NEEDS = frozenset({"fit_reference"})
AXIS = None
NEUTRAL = None
EXAMPLE: dict[str, object] = {}
REPAIRS = ("*",)
LEAVES_REFERENCE = True  # no factor lowers a KL of 0, so none is attached
WINDOWS = 8  # in one forward pass


@dataclass(frozen=True)
class Settings:
    """No settings."""


def apply(model, settings: Settings, data) -> dict[str, Any]:
    """Fit the factor, decide, and attach it if it won.

    Raises ValueError if there are fewer than two fit windows, or the fit text is of another model.
    """
    import torch

    from hemorrhage.architecture import attachments, head
    from hemorrhage.methods.temperature_fit import fit_factor, mean_kl

    half = len(data.fit.tokens) // 2
    if half == 0:
        raise ValueError("calibrated_temperature: the fit set holds one window; it needs two, one of them to validate.")
    reference = data.fit.hidden
    own = torch.cat([head.hidden_states(model, part) for part in data.fit.tokens.split(WINDOWS)])
    head_of_model = head.Head.of(model)
    fit_reference, check_reference = (_side(data.fit.head, part) for part in (reference[:half], reference[half:]))
    fit_model, check_model = (_side(head_of_model, part) for part in (own[:half], own[half:]))
    factor = fit_factor(fit_reference, fit_model)
    before, after = mean_kl(check_reference, check_model, (1.0, factor))
    chosen = after < before
    if chosen:
        attachments.attach(model, {"kind": "logit_scale", "factor": factor})
    return {
        "fitted_factor": factor,
        "chosen": "factor" if chosen else "identity",
        "validation_kl": before,
        "validation_kl_scaled": after,
    }


def _side(head, hidden):
    """One model at the positions that predict a token of the window: all but the last."""
    from hemorrhage.methods.temperature_fit import Side

    return Side(head, hidden[:, :-1].reshape(-1, hidden.shape[-1]))
