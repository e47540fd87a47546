"""Articles of a Wikipedia dump as plain prose.

What is not prose goes: redirects, pages outside the article namespace, tables, lists, headings, footnotes, pictures,
categories, formulas, nearly all templates. A line that loses a formula is dropped whole, since what is left of it is
no longer a sentence.
"""

from __future__ import annotations

import bz2
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

ARTICLE_NAMESPACE = "0"
SHORTEST = 60  # characters: shorter lines are captions, hatnotes and what is left of lists

# Control characters cannot stand in XML, so they cannot stand in an article.
_LIST, _LOST = "\x01", "\x02"
_HIDDEN_TAGS = {"ref", "table", "gallery", "timeline", "imagemap", "references", "score", "syntaxhighlight", "source"}
_LOST_TAGS = {"math", "chem", "pre", "poem"}
_LIST_TAGS = {"li", "dd", "dt", "ul", "ol", "dl"}
# Templates that stand for words in the middle of a sentence: the arguments that are the words.
_INLINE = {
    "convert": (1, 2),
    "cvt": (1, 2),
    "lang": (2,),
    "nowrap": (1,),
    "as of": (1,),
    "angbr": (1,),
    "val": (1,),
    "transl": (2,),
    "smallcaps": (1,),
    "abbr": (1,),
    "circa": (1,),
    "sup": (1,),
    "sub": (1,),
    "gaps": (1, 2, 3),
}
_DASHES = {"spaced ndash": " – ", "snd": " – ", "ndash": "–", "mdash": "—", "endash": "–", "emdash": "—", "'": "'"}
_NAMESPACE_LINK = re.compile(r"\s*:?\s*(file|image|media|category|[a-z]{2,3}|simple|[a-z]+-[a-z-]+)\s*:", re.IGNORECASE)
_EMPTY_BRACKETS = re.compile(r"\s*\(\s*(?:[;,:/–—-]\s*|or\s+|and\s+)*\)")
_OPEN_BRACKET = re.compile(r"\(\s*(?:[;,:]\s*)*")
_CLOSE_BRACKET = re.compile(r"\s*[;,:]*\s+\)")
_BEFORE_PUNCTUATION = re.compile(r"\s+([,.;:!?)])(?!\w)")
_SPACES = re.compile(r"[ \t\u00a0\u2009\u200a]+")
_POWER = re.compile(r"[−-]?\d+")
# What the parser leaves of broken markup.
_MARKUP = re.compile(r"\[\[|\]\]|\{\{|\}\}|\{\||\|\}|''|</?[a-z]+|\|\s*[a-z]+\s*=|\|thumb", re.IGNORECASE)
_SENTENCE_END = re.compile(r"""[.!?]['")\]”’]*$""")


def pages(path: Path) -> Iterator[tuple[str, str]]:
    """Yield (title, wiki markup) of the articles of a ``pages-articles`` XML dump (.bz2 or plain), in its order.

    Raises ValueError if the file is not such a dump.
    """
    try:
        with bz2.open(path) if path.suffix == ".bz2" else path.open("rb") as stream:
            for _, element in ElementTree.iterparse(stream):
                if element.tag.rpartition("}")[2] != "page":
                    continue
                is_article = element.findtext("{*}ns") == ARTICLE_NAMESPACE and element.find("{*}redirect") is None
                if is_article:
                    yield element.findtext("{*}title") or "", element.findtext("{*}revision/{*}text") or ""
                element.clear()
    except (ElementTree.ParseError, EOFError, OSError) as error:
        raise ValueError(f"{path}: not a Wikipedia pages-articles dump ({error}).") from None


def prose(markup: str) -> str:
    """Return the prose of an article: paragraphs separated by an empty line."""
    lines = (_clean(line) for line in _text(_parse(markup)).splitlines() if _LIST not in line and _LOST not in line)
    return "\n\n".join(
        line for line in lines if len(line) >= SHORTEST and _SENTENCE_END.search(line) and not _MARKUP.search(line)
    )


def _parse(markup: str) -> Any:
    import mwparserfromhell

    return mwparserfromhell.parse(markup)


@cache
def _nodes() -> Any:
    from mwparserfromhell import nodes

    return nodes


def _text(code: Any) -> str:
    """The words of parsed markup; markers stand where a list item begins and where a formula was."""
    return "".join(_node_text(node) for node in code.nodes) if code is not None else ""


def _node_text(node: Any) -> str:
    kinds = _nodes()
    if isinstance(node, kinds.Text):
        return str(node.value)
    if isinstance(node, kinds.Wikilink):
        if _NAMESPACE_LINK.match(str(node.title)):
            return ""
        return _text(node.text if node.text is not None else node.title)
    if isinstance(node, kinds.ExternalLink):
        return _text(node.title)
    if isinstance(node, kinds.HTMLEntity):
        return str(node.normalize())
    if isinstance(node, kinds.Heading):
        return "\n\n"
    if isinstance(node, kinds.Template):
        return _template_text(node)
    return _tag_text(node) if isinstance(node, kinds.Tag) else ""


def _tag_text(tag: Any) -> str:
    name = str(tag.tag).strip().lower()
    if name in _LIST_TAGS:
        return _LIST + _text(tag.contents)
    if name in _LOST_TAGS:
        return _LOST
    if name in _HIDDEN_TAGS:
        return ""
    words = _text(tag.contents)
    if name == "sup" and _POWER.fullmatch(words):
        return f"^{words}"  # 10^7, not 107
    return " " if name == "br" else words


def _template_text(template: Any) -> str:
    name = str(template.name).strip().lower().replace("_", " ")
    if name in _DASHES:
        return _DASHES[name]
    if name == "math":
        return _LOST
    places = [place for place in _INLINE.get(name, ()) if template.has(place)]
    return " ".join(_text(template.get(place).value).strip() for place in places)


def _clean(line: str) -> str:
    """A line without the holes that removed markup left."""
    line = _SPACES.sub(" ", line)
    line = _EMPTY_BRACKETS.sub("", line)
    line = _CLOSE_BRACKET.sub(")", _OPEN_BRACKET.sub("(", line))
    line = _BEFORE_PUNCTUATION.sub(r"\1", line)
    return _SPACES.sub(" ", line).strip()
