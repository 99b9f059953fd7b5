"""What `audit` finds: rules with stable ids, and where something breaks one of them (docs/reference/audit-rules.md)."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import NamedTuple

from jetkeep.errors import JetkeepError


class Severity(IntEnum):
    """How bad it is; the names are SARIF's levels."""

    NOTE = 1
    WARNING = 2
    ERROR = 3

    @property
    def word(self) -> str:
        """As it is written everywhere."""
        return self.name.lower()


class Rule(NamedTuple):
    """One thing that must hold. Ids are append-only: suppressions and scripts name them."""

    id: str
    name: str
    severity: Severity
    why: str
    fix: str


class Place(NamedTuple):
    """Where: a file (or `live`), a line in it (0: the whole), and the Kubernetes object, `Kind namespace/name`, if any."""

    file: str
    line: int = 0
    object: str = ""

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.line else self.file
        return f"{where} ({self.object})" if self.object else where


class Finding(NamedTuple):
    """One rule, broken at one place; `what` never holds a secret."""

    rule: Rule
    place: Place
    what: str
    severity: Severity


class Suppressed(NamedTuple):
    """A finding that somebody accepts, and why."""

    finding: Finding
    reason: str


@dataclass(slots=True)
class Report:
    """All that an audit says.

    Attributes:
        files, objects: how much was looked at.
        unread: what was named and could not be read, with the error: the findings are not all there are.
        unseen: what a live cluster did not show to this user.
        notices: what else a reader must know to judge the result.
    """

    files: int = 0
    objects: int = 0
    findings: list[Finding] = field(default_factory=list)
    suppressed: list[Suppressed] = field(default_factory=list)
    unread: list[tuple[str, JetkeepError]] = field(default_factory=list)
    unseen: list[str] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
