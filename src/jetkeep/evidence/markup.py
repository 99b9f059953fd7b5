"""HTML from values: whatever was not made here is text, and is escaped. Pure."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from html import escape

_SHOWN = frozenset("\n\t")


class Markup(str):
    """HTML that was made here."""

    __slots__ = ()


def text(value: object) -> Markup:
    """A value as HTML that shows it, and nothing else.

    Invisible characters are written out: what turns the direction of writing could show other facts.
    """
    if isinstance(value, Markup):
        return value
    shown = str(value)
    if not shown.isprintable():
        shown = "".join(one if _visible(one) else f"\\u{{{ord(one):x}}}" for one in shown)
    return Markup(escape(shown))


def tag(name: str, *inside: object, of: str = "", rows: int = 1, columns: int = 1) -> Markup:
    """An element; `of` is its class."""
    attributes = f' class="{escape(of)}"' if of else ""
    attributes += f' rowspan="{rows}"' if rows > 1 else ""
    attributes += f' colspan="{columns}"' if columns > 1 else ""
    return Markup(f"<{name}{attributes}>{together(inside)}</{name}>")


def together(parts: Iterable[object], between: str = "") -> Markup:
    """All parts, one after the other."""
    return Markup(text(between).join(map(text, parts)))


def row(*cells: Markup) -> Markup:
    """A row of a table."""
    return Markup(f"<tr>{''.join(cells)}</tr>\n")


def table(heads: Iterable[Markup], rows: Iterable[Markup], of: str = "") -> Markup:
    """A table whose head is repeated on each page; of facts, where there are no heads."""
    head = row(*heads)
    inside = [tag("thead", head)] if head != row() else []
    return Markup(tag("table", "\n", *inside, *rows, of=of) + "\n")


def listed(items: Iterable[object]) -> Markup:
    """A list of points."""
    return tag("ul", *(tag("li", one) for one in items))


def _visible(one: str) -> bool:
    return one in _SHOWN or unicodedata.category(one) not in ("Cc", "Cf", "Zl", "Zp")
