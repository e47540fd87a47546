"""Made-up articles of whole sentences, for the tasks that are built from a text."""

import numpy as np

import tiny
from hemorrhage.corpus.texts import Article

STOCK = tiny.STOCK.split()


def article(number, count=60):
    """Sentences of random words; every one ends in a long word that the sentence before has used."""
    draw = np.random.default_rng(number)
    parts = []
    for place in range(count):
        words = [str(word) for word in draw.choice(STOCK, 19)]
        words[3], last = f"topic{'abcdefgh'[place % 8]}", f"topic{'abcdefgh'[(place - 1) % 8]}"
        parts.append(" ".join([words[0].capitalize(), *words[1:], last]) + ".")
    return Article(f"article {number}", " ".join(parts))


ARTICLES = [article(number) for number in range(4)]
