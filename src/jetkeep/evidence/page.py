"""The printable twin of a document of evidence: one HTML page that needs nothing else, and runs nothing. Pure."""

from __future__ import annotations

import unicodedata
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined, Template

from jetkeep.model import JsonDict

#: Consumers of one stream that the page lists when they are as they were; those that are not are all listed.
LISTED = 50
_SHOWN = frozenset("\n\t")


def render(document: JsonDict) -> bytes:
    """The page; the same document gives the same bytes. Whatever a document says is text there, never markup."""
    return _template().render(one=document, consumers=_consumers).encode()


def load() -> None:
    """Prepare the template, which takes a moment the first time."""
    _template()


@cache
def _template() -> Template:
    # What a document lacks is an error here, not a blank on paper.
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(plain=plain, number=_number, seconds=_seconds, time=_time)
    # Text of a document is a plain `str`; markup that the template itself made is not.
    environment.finalize = lambda value: plain(value) if type(value) is str else value
    return environment.from_string(files(__package__).joinpath("page.html.j2").read_text(encoding="utf-8"))


def plain(text: str) -> str:
    """Text whose invisible characters are written out: what turns the direction of writing could show other facts."""
    return "".join(
        one if one in _SHOWN or unicodedata.category(one) not in ("Cc", "Cf", "Zl", "Zp") else f"\\u{{{ord(one):x}}}"
        for one in text
    )


def _consumers(stream: JsonDict) -> list[JsonDict]:
    bad = [one for one in stream["consumers"] if one["verdict"] != "SUCCESSFUL"]
    good = [one for one in stream["consumers"] if one["verdict"] == "SUCCESSFUL"]
    return bad + good[:LISTED]


def _number(value: Any) -> str:
    """A count; large ones stand as text in the document."""
    return f"{int(value):,}".replace(",", "\u202f")


def _seconds(value: float | None) -> str:
    if value is None:
        return "—"
    if value < 1:
        return f"{value * 1000:.0f} ms"
    if value < 120:
        return f"{round(value, 1):g} s"
    minutes, rest = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = ((days, "d"), (hours, "h"), (minutes, "min"), (rest, "s"))
    return " ".join(f"{count} {unit}" for count, unit in parts if count)


def _time(text: str) -> str:
    """A time without its fraction."""
    return f"{text[:10]} {text[11:19]} UTC"
