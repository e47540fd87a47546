"""How far one next-token distribution is from another, token by token, exactly and over the whole vocabulary.

With P the reference, Q the variant, d = ln p - ln q, x = |d|, F = expm1(-x) and M = max(p, q), every sum here is one
of M and a term that is never negative and keeps its precision near 0:

- KL(P||Q):  p(d + expm1(-d)), which is M(x + F) where p >= q and -M(x + F + xF) where p < q;
- KL(Q||P):  the same with the two cases exchanged;
- total variation:  -MF / 2;
- Jensen-Shannon:  -M((2 + F) log1p(F / 2) + (1 + F)x) / 2.

M and F instead of p and q: nothing overflows, however far apart the two are. d comes from the difference of the
logits, which is exact where they are close; an error of the normalisation enters only squared. Rows whose KL is so
small that float32 cancels in x + F are done again in float64. All divergences are in nats.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

TOP = 5
BLOCK = 128
REFINE_BELOW = 5e-7  # nats; float32 leaves x + F there a relative error of up to 4e-5, growing as KL falls
LOGITS_AT_ONCE = 2**23  # elements of one side's logits: the head's matrix product wants many rows
CACHED_ELEMENTS = 200_000  # of one buffer on a CPU: larger ones leave the cache and cost twice the time
LOG_2 = 0.6931471805599453

Logits = Callable[[torch.Tensor], torch.Tensor]


def compare_hidden(
    reference_head: Logits,
    reference_hidden: torch.Tensor,
    head: Logits,
    hidden: torch.Tensor,
    targets: torch.Tensor,
    vocabulary: int | None = None,
) -> dict[str, torch.Tensor]:
    """Compare two models at n positions from the inputs of their output embeddings, a few logits at a time.

    Args:
        reference_head: maps [m, d] to float32 logits [m, V] of the reference.
        reference_hidden: [n, d].
        head: the variant's.
        hidden: [n, d'].
        targets: [n] the true next tokens, n at least 1.
        vocabulary: compare the first so many entries of both; None: both must have equally many.

    Returns:
        What ``compare`` returns, [n] each. Memory does not depend on n.

    Raises:
        ValueError: the vocabularies differ, or are smaller than ``vocabulary``.
    """
    size = _common_vocabulary(reference_head(reference_hidden[:1]), head(hidden[:1]), vocabulary)
    rows = max(1, LOGITS_AT_ONCE // size)
    parts = []
    for start in range(0, len(targets), rows):
        piece = slice(start, start + rows)
        p, q = reference_head(reference_hidden[piece])[:, :size], head(hidden[piece])[:, :size]
        parts.append(compare(p, q, targets[piece]))
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def compare(p_logits: torch.Tensor, q_logits: torch.Tensor, targets: torch.Tensor) -> dict[str, torch.Tensor]:
    """Compare two sets of logits row by row.

    A row with a logit that is not finite on either side has no distribution: its KL and NLL are infinite and its
    bounded measures are at their worst.

    Args:
        p_logits: [n, V] float32, of the reference.
        q_logits: [n, V] float32, of the variant.
        targets: [n] the true tokens.

    Returns:
        [n] float32 each: ``kl``, ``kl_reverse``, ``jensen_shannon``, ``total_variation``, ``reference_nll``, ``nll``,
        ``delta_p`` (q - p of the true token), ``top1_agreement`` (0 or 1), ``top5_overlap`` (share),
        ``confidence`` (the reference's top probability), ``nonfinite`` (0 or 1).
    """
    n, size = p_logits.shape
    rows = n if p_logits.is_cuda else max(1, CACHED_ELEMENTS // size)
    buffers = torch.empty(6, min(rows, n), size, device=p_logits.device)
    parts = []
    for start in range(0, n, rows):
        p, q, target = (full[start : start + rows] for full in (p_logits, q_logits, targets))
        part = _divergences(p, q, target, buffers[:, : len(p)])
        _refine(part, p, q, target)
        _mark_nonfinite(part)
        parts.append(part)
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _divergences(
    a: torch.Tensor, b: torch.Tensor, targets: torch.Tensor, buffers: torch.Tensor
) -> dict[str, torch.Tensor]:
    """All measures of logits a (P) and b (Q) [r, V], written with six buffers [6, r, V] of their dtype."""
    p, q, d, x, f, w = buffers
    (top_a, tokens_a), (top_b, tokens_b) = _most_probable(a), _most_probable(b)
    largest_a, largest_b = top_a[:, :1], top_b[:, :1]
    log_a, log_b = _softmax(a, largest_a, p), _softmax(b, largest_b, q)
    m = torch.maximum(p, q, out=p)
    # Not the difference of two log-sum-exps: those are large, and their rounding would show in total variation.
    torch.sub(a, b, out=d).sub_((largest_a - largest_b) + (log_a - log_b))
    torch.abs(d, out=x)
    torch.neg(x, out=f).expm1_()
    variation = torch.linalg.vecdot(m, f) / -2
    h = torch.add(x, f, out=q)
    torch.clamp(d, max=0, out=w)
    kl = torch.linalg.vecdot(m, torch.addcmul(h, f, w, value=-1, out=w).abs_())
    d.clamp_(min=0)
    reverse = torch.linalg.vecdot(m, torch.addcmul(h, f, d, out=w).abs_())
    torch.mul(f, 0.5, out=w).log1p_()
    torch.add(f, 2, out=q).mul_(w)
    shannon = torch.linalg.vecdot(m, torch.addcmul(x, f, x, out=w).add_(q).abs_()) / 2
    nll_a = (largest_a - a.gather(1, targets[:, None]) + log_a)[:, 0]
    nll_b = (largest_b - b.gather(1, targets[:, None]) + log_b)[:, 0]
    same = (tokens_a[:, :, None] == tokens_b[:, None, :]).any(2)
    return {
        "kl": kl,
        "kl_reverse": reverse,
        "jensen_shannon": shannon,
        "total_variation": variation,
        "reference_nll": nll_a,
        "nll": nll_b,
        "delta_p": (-nll_b).exp() - (-nll_a).exp(),
        "top1_agreement": (tokens_a[:, 0] == tokens_b[:, 0]).to(kl.dtype),
        "top5_overlap": same.to(kl.dtype).mean(1),
        "confidence": (-log_a[:, 0]).exp(),
    }


def _most_probable(logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Values and tokens [r, TOP] of the largest logits, largest first.

    They lie in the blocks with the TOP largest maxima: five times faster than a selection from the whole row.
    """
    blocks = logits.shape[1] // BLOCK
    if blocks < TOP:
        return logits.topk(min(TOP, logits.shape[1]), dim=1)
    chosen = logits[:, : blocks * BLOCK].unflatten(1, (blocks, BLOCK)).amax(2).topk(TOP, dim=1).indices
    inside = torch.arange(BLOCK, device=logits.device)
    rest = torch.arange(blocks * BLOCK, logits.shape[1], device=logits.device).expand(len(logits), -1)
    candidates = torch.cat([(chosen[:, :, None] * BLOCK + inside).flatten(1), rest], dim=1)
    values, places = logits.gather(1, candidates).topk(TOP, dim=1)
    return values, candidates.gather(1, places)


def _softmax(logits: torch.Tensor, largest: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
    """Write the softmax [r, V] into ``out``; returns the log-sum-exp [r, 1] above the largest logit."""
    total = torch.sub(logits, largest, out=out).exp_().sum(1, keepdim=True)
    out.div_(total)
    return total.log()


def _refine(part: dict[str, torch.Tensor], p: torch.Tensor, q: torch.Tensor, targets: torch.Tensor) -> None:
    """Do the divergences of nearly equal rows again in float64; rows with equal logits are exact already."""
    rows = ((part["kl"] < REFINE_BELOW) & (part["total_variation"] > 0)).nonzero()[:, 0]
    if not len(rows):
        return
    p, q = p[rows].double(), q[rows].double()
    exact = _divergences(p, q, targets[rows], p.new_empty(6, *p.shape))
    for name in ("kl", "kl_reverse", "jensen_shannon", "total_variation"):
        part[name][rows] = exact[name].float()


def _mark_nonfinite(part: dict[str, torch.Tensor]) -> None:
    """Flag the rows without a distribution and put every measure of theirs at its worst."""
    bad = ~(torch.isfinite(part["kl"]) & torch.isfinite(part["nll"]) & torch.isfinite(part["reference_nll"]))
    worst = {
        "kl": torch.inf,
        "kl_reverse": torch.inf,
        "jensen_shannon": LOG_2,
        "total_variation": 1.0,
        "nll": torch.inf,
        "top1_agreement": 0.0,
        "top5_overlap": 0.0,
    }
    for name, value in worst.items():
        part[name].masked_fill_(bad, value)
    part["delta_p"] = torch.where(bad, -(-part["reference_nll"]).exp(), part["delta_p"]).nan_to_num_(0.0)
    part["confidence"].nan_to_num_(0.0)
    part["nonfinite"] = bad.to(part["kl"].dtype)


def _common_vocabulary(p: torch.Tensor, q: torch.Tensor, vocabulary: int | None) -> int:
    """The number of entries to compare of logits p and q [.., V]."""
    sizes = p.shape[1], q.shape[1]
    if vocabulary is None and sizes[0] != sizes[1]:
        raise ValueError(
            f"The reference has {sizes[0]} vocabulary entries and the variant {sizes[1]}: their distributions cannot "
            "be compared; use models of one tokenizer, or name the tokenizer's size if only the padding differs."
        )
    if vocabulary is not None and min(sizes) < vocabulary:
        raise ValueError(
            f"The reference has {sizes[0]} and the variant {sizes[1]} vocabulary entries, fewer than the "
            f"tokenizer's {vocabulary}: compare models of one tokenizer."
        )
    return sizes[0] if vocabulary is None else vocabulary
