"""Agreement: which of two sentences is grammatical, in minimal pairs from a small grammar of our own, as in BLiMP.

The two sentences differ in one word: a verb that agrees with its subject across a noun of the other number, a noun
that agrees with its determiner across an adjective, a reflexive that agrees with its subject in number or in gender.
Correct is the one to which the model gives the highest probability; chance is 1/2. No text is needed.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from typing import Any

from hemorrhage.corpus.texts import Article
from hemorrhage.corpus.windows import rank
from hemorrhage.tasks.passages import Item

NAME = "agreement"
MOST = 2000  # items; the grammar makes some ten thousand

PEOPLE = (
    ("teacher", "teachers"),
    ("doctor", "doctors"),
    ("student", "students"),
    ("farmer", "farmers"),
    ("child", "children"),
    ("artist", "artists"),
    ("lawyer", "lawyers"),
    ("nurse", "nurses"),
    ("writer", "writers"),
    ("soldier", "soldiers"),
)
THINGS = (
    ("book", "books"),
    ("house", "houses"),
    ("picture", "pictures"),
    ("letter", "letters"),
    ("car", "cars"),
    ("table", "tables"),
    ("box", "boxes"),
    ("knife", "knives"),
    ("garden", "gardens"),
    ("bridge", "bridges"),
)
MALE = (("man", "men"), ("boy", "boys"), ("father", "fathers"), ("king", "kings"), ("brother", "brothers"))
FEMALE = (("woman", "women"), ("girl", "girls"), ("mother", "mothers"), ("queen", "queens"), ("sister", "sisters"))
PLACES = ("near", "behind", "next to", "in front of", "beside")
SEEING = ("saw", "remembered", "painted", "described", "admired", "noticed")
STATES = ("old", "famous", "small", "important", "beautiful", "strange", "quiet", "expensive")
COPULAS = (("is", "are"), ("was", "were"))
ACTS = (("works", "work"), ("lives", "live"), ("sleeps", "sleep"), ("sings", "sing"))
WHEN = ("every day", "in the city", "in the village", "at night")
REFLEXIVE = ("hurt", "saw", "blamed", "taught", "introduced", "described", "prepared", "cut")
WHERE = ("in the mirror", "before the meeting", "after the accident", "last year", "that morning")
NAMES = ("Anna", "Peter", "Maria", "Robert", "Helen", "David")
DETERMINERS = (("this", "these"), ("that", "those"))


def build(articles: Iterable[Article], count: int, seed: int) -> list[Item]:
    """Return items with ``kind``, ``choices`` and ``gold``, all kinds equally often.

    Raises ValueError if more are asked for than the grammar should give.
    """
    if count > MOST:
        raise ValueError(f"tasks: {count} items of {NAME} are asked for, its grammar gives {MOST}; ask for fewer.")
    draw = random.Random(f"{NAME} {seed}")
    items: dict[str, Item] = {}
    while len(items) < count:
        kind = list(KINDS)[len(items) % len(KINDS)]
        good, bad = KINDS[kind](draw)
        # The good one stands first in half of the items, or a model that cannot tell them apart would look perfect.
        order = sorted((good, bad), key=lambda sentence: rank(seed, len(items), sentence))
        items.setdefault(good, {"kind": kind, "choices": order, "gold": order.index(good)})
    return list(items.values())


def definition(data: Any) -> dict[str, Any]:
    """Return the task in lm-eval's form; ``data`` gives the items."""
    return {
        "task": NAME,
        "custom_dataset": data,
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "",
        "doc_to_choice": "choices",
        "doc_to_target": "gold",
        "target_delimiter": "",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    }


def _copula(draw: random.Random) -> tuple[str, str]:
    number = draw.randrange(2)
    (subject, other), verbs = draw.sample(THINGS, 2), draw.choice(COPULAS)
    frame = f"The {subject[number]} {draw.choice(PLACES)} the {other[1 - number]} {{}} {draw.choice(STATES)}."
    return frame.format(verbs[number]), frame.format(verbs[1 - number])


def _verb(draw: random.Random) -> tuple[str, str]:
    number = draw.randrange(2)
    (subject, other), verbs = draw.sample(PEOPLE, 2), draw.choice(ACTS)
    frame = f"The {subject[number]} who {draw.choice(SEEING)} the {other[1 - number]} {{}} {draw.choice(WHEN)}."
    return frame.format(verbs[number]), frame.format(verbs[1 - number])


def _determiner(draw: random.Random) -> tuple[str, str]:
    number, noun = draw.randrange(2), draw.choice((*PEOPLE, *THINGS))
    determiner = draw.choice(DETERMINERS)[number]
    frame = f"{draw.choice(NAMES)} {draw.choice(SEEING)} {determiner} {draw.choice(STATES)} {{}}."
    return frame.format(noun[number]), frame.format(noun[1 - number])


def _reflexive_number(draw: random.Random) -> tuple[str, str]:
    number, female = draw.randrange(2), draw.randrange(2)
    noun = draw.choice(FEMALE if female else MALE)[number]
    words = ("herself" if female else "himself", "themselves")
    frame = f"The {noun} {draw.choice(REFLEXIVE)} {{}} {draw.choice(WHERE)}."
    return frame.format(words[number]), frame.format(words[1 - number])


def _reflexive_gender(draw: random.Random) -> tuple[str, str]:
    female = draw.randrange(2)
    words = ("himself", "herself")
    frame = f"The {draw.choice((MALE, FEMALE)[female])[0]} {draw.choice(REFLEXIVE)} {{}} {draw.choice(WHERE)}."
    return frame.format(words[female]), frame.format(words[1 - female])


KINDS: dict[str, Callable[[random.Random], tuple[str, str]]] = {
    "copula": _copula,
    "verb": _verb,
    "determiner_noun": _determiner,
    "reflexive_number": _reflexive_number,
    "reflexive_gender": _reflexive_gender,
}
