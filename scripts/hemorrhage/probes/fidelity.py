"""Fidelity: how far the variant's next-token distributions are from the reference's, over the whole vocabulary.

Both models predict every scored token of the same windows. Reported are the loss itself (NLL, perplexity, bits per
byte), its paired change, divergences (KL in both directions, Jensen-Shannon, total variation and what speculative
decoding would accept, 1 - TV), the distribution of KL over tokens and by the reference's confidence, agreement of the
most probable tokens, and the change of the true token's probability. A position with a logit that is not finite makes
the means of NLL and KL infinite; ``kl_finite`` is the mean over the others. The names follow llama.cpp's
``--kl-divergence`` block where it has one; intervals take the window as the unit, not the token.

Cost: one forward pass of the variant and one more product with the reference's output embedding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from hemorrhage.probing import Context
    from hemorrhage.records import Measurement

VERSION = 1


@dataclass(frozen=True)
class Settings:
    """No settings: the protocol is the token set's."""


def measure(model: PreTrainedModel, context: Context, settings: Settings) -> Measurement:
    """Compare ``model`` with the reference on the windows of the context.

    Raises:
        ValueError: the vocabularies differ, or the reference was measured on other windows.
    """
    from hemorrhage.measuring import comparison, fidelity_metrics

    if context.reference.tokens_hash != context.tokens.hash:
        raise ValueError("The reference was measured on other windows than the ones given; measure it again.")
    values = comparison.compare(
        context.reference_head, context.reference.hidden, model, context.tokens, context.batch, context.vocabulary
    )
    return fidelity_metrics.summarise(values, context.tokens, context.index)
