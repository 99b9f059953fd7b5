"""jetkeep.toml, wherever it stands: as a file, or as a key of a ConfigMap."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from jetkeep.audit.credentials import redacted
from jetkeep.audit.document import Document, Node
from jetkeep.audit.findings import Finding, Place
from jetkeep.audit.rules import RULES
from jetkeep.config.file import parse_config
from jetkeep.errors import UsageError

_LINE = re.compile(r"\(at line (\d+)")


class Settings(NamedTuple):
    """One configuration: its tables, and where its text stands."""

    document: Document
    text: Node
    tables: dict[str, Any]

    def group(self, name: str) -> dict[str, dict[str, Any]]:
        """The tables `[name.…]`; `[name]` itself under the empty name."""
        found = self.tables.get(name, {})
        if not isinstance(found, dict):
            return {}
        below = {key: one for key, one in found.items() if isinstance(one, dict)}
        own = {key: one for key, one in found.items() if not isinstance(one, dict)}
        return {**below, **({"": own} if own else {})}

    def line(self, table: str, key: str = "") -> int:
        """The file's line of a table's header, or of a key in it."""
        lines = self.text.text.splitlines()
        header = re.compile(rf"\s*\[\s*{re.escape(table)}\s*\]")
        at = next((number for number, one in enumerate(lines) if header.match(one)), 0)
        for number in range(at + 1, len(lines)):
            if not key or lines[number].lstrip().startswith("["):
                break
            if re.match(rf"\s*{re.escape(key)}\s*=", lines[number]):
                at = number
                break
        return self.text.line_of(at)

    def finding(self, rule: str, what: str, table: str = "", key: str = "") -> Finding:
        """Something wrong at a table or key of it."""
        line = self.line(table, key) if table else self.text.line
        return Finding(RULES[rule], Place(self.document.file, line, self.document.title), what, RULES[rule].severity)


def _texts(documents: Iterable[Document]) -> Iterator[tuple[Document, Node]]:
    for document in documents:
        if document.toml:
            yield document, Node(document.toml, 1, 1)
        elif document.kind in ("ConfigMap", "Secret"):
            for group in ("data", "stringData"):
                for key, node in document.node.get(group).items.items():
                    if key.endswith(".toml"):
                        yield document, node


def configurations(documents: Iterable[Document]) -> tuple[list[Settings], list[Finding]]:
    """Every configuration that can be read, and what jetkeep itself would refuse of any."""
    found: list[Settings] = []
    wrong: list[Finding] = []
    for document, text in _texts(documents):
        try:
            tables = tomllib.loads(text.text)
        except tomllib.TOMLDecodeError as failure:
            at = _LINE.search(str(failure))
            line = text.line_of(int(at[1]) - 1) if at else text.line
            place = Place(document.file, line, document.title)
            wrong.append(Finding(RULES["JK027"], place, "it is no TOML", RULES["JK027"].severity))
            continue
        if not document.toml.strip() and not tables.keys() & {"repositories", "sources", "schedules", "agent"}:
            continue  # another program's
        settings = Settings(document, text, tables)
        found.append(settings)
        try:
            parse_config(text.text, "of jetkeep")
        except UsageError as failure:
            what = redacted(failure.what.removeprefix("the configuration of jetkeep "))
            wrong.append(settings.finding("JK027", what, _table_in(what)))
    return found, wrong


def _table_in(what: str) -> str:
    """The table that a message is about."""
    named = re.search(r"\[([\w.-]+)\]", what) or re.search(r"\bat ([\w-]+\.[\w-]+)", what)
    return named[1] if named else ""
