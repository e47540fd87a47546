"""What one text, or a set of texts, is like: repetition, diversity, edit distance, self-BLEU, and how it failed.

Texts are lists of token ids. Only the standard library is used.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

Tokens = Sequence[int]
ORDERS = (2, 3, 4)  # of the repetition measures
BLEU = 4
LONGEST_PERIOD = 16  # tokens; a loop has a period of at most so many
LOOP = 0.5  # of the text is inside its final loop
GARBLED = 3.0  # nats per token that the reference finds the text less likely than its own
EARLY = 0.5  # of the reference's length


def repetition(tokens: Tokens, n: int) -> float:
    """Return rep-n: the share of n-grams that occurred before; 0 for a text without an n-gram."""
    found = ngrams(tokens, n)
    return 1 - len(found) / sum(found.values()) if found else 0.0


def distinct(texts: Sequence[Tokens], n: int) -> float:
    """Return distinct-n: different n-grams over all n-grams of the texts together; 0 without an n-gram."""
    found = sum((ngrams(text, n) for text in texts), Counter())
    return len(found) / sum(found.values()) if found else 0.0


def edit_distance(a: Tokens, b: Tokens) -> float:
    """Return the Levenshtein distance over the longer length: 0 for equal texts, 1 for nothing in common."""
    if not a and not b:
        return 0.0
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        before, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            before, row[j] = row[j], min(before + (x != y), row[j] + 1, row[j - 1] + 1)
    return row[-1] / max(len(a), len(b))


def bleu(text: Tokens, others: Sequence[Tokens]) -> float:
    """Return BLEU-4 of a text against others, counts of order 2 and above plus 1 (Lin & Och 2004); 0 to 1."""
    if not text or not any(others):
        return 0.0
    logs = []
    for n in range(1, BLEU + 1):
        found = ngrams(text, n)
        known: Counter[tuple[int, ...]] = Counter()
        for other in others:
            known |= ngrams(other, n)
        hits, total, smooth = sum((found & known).values()), sum(found.values()), int(n > 1)
        if hits + smooth == 0 or total + smooth == 0:
            return 0.0
        logs.append(math.log((hits + smooth) / (total + smooth)))
    nearest = min((abs(len(other) - len(text)), len(other)) for other in others)[1]
    return math.exp(sum(logs) / BLEU + min(0.0, 1 - nearest / len(text)))


def self_bleu(texts: Sequence[Tokens]) -> list[float]:
    """Return BLEU of every text against all others: near 1 where a model says the same whatever it is asked.

    nan for a text that has no other.
    """
    if len(texts) < 2:
        return [math.nan] * len(texts)
    return [bleu(text, [other for j, other in enumerate(texts) if j != i]) for i, text in enumerate(texts)]


def looping(tokens: Tokens) -> float:
    """Return the share of the text that its end repeats with one period, at least three times over; else 0."""
    best = 0
    for period in range(1, min(LONGEST_PERIOD, len(tokens) // 3) + 1):
        same = 0
        while same < len(tokens) - period and tokens[-1 - same] == tokens[-1 - same - period]:
            same += 1
        if same >= 2 * period:
            best = max(best, same + period)
    return best / len(tokens) if tokens else 0.0


def failure(tokens: Tokens, reference: Tokens, finished: bool, excess: float) -> str:
    """Return how a text departs from the reference's: same, loop, early stop, garble or drift.

    Args:
        tokens: of the text.
        reference: tokens of the reference's text.
        finished: True if the text ended by itself.
        excess: nats per token by which the reference finds the text less likely than its own; nan if unknown.
    """
    if list(tokens) == list(reference):
        return "same"
    if looping(tokens) >= LOOP > looping(reference):
        return "loop"
    if finished and len(tokens) < EARLY * len(reference):
        return "early stop"
    return "garble" if excess > GARBLED else "drift"


def ngrams(tokens: Tokens, n: int) -> Counter[tuple[int, ...]]:
    """Return the n-grams with their counts."""
    return Counter(zip(*(tokens[i:] for i in range(n)), strict=False))
