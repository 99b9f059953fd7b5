"""What somebody accepts, and why: comments in files, annotations at objects.

    # jetkeep-audit: ignore JK012 the store is on this machine
    audit.jetkeep.io/ignore-JK012: the store is on this machine

A comment counts for the entry of its line; alone on its line, for the one below, with all that is in it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from jetkeep.audit.document import Document
from jetkeep.audit.findings import Finding, Place, Suppressed
from jetkeep.audit.reading import Source
from jetkeep.audit.rules import RULES

ANNOTATION = "audit.jetkeep.io/ignore-"
_COMMENT = re.compile(r"#\s*jetkeep-audit:\s*ignore\b[\s:]*(?P<rule>JK\d+)?[\s:,-]*(?P<reason>.*)$")


@dataclass(slots=True)
class Suppression:
    """One rule, accepted from line `first` to `last` of a file, or for the object of that title."""

    rule: str
    reason: str
    place: Place
    first: int = 0
    last: int = 0
    used: bool = False

    def covers(self, finding: Finding) -> bool:
        """Whether this finding is accepted."""
        here = finding.place
        if self.rule != finding.rule.id or here.file != self.place.file or not self.reason:
            return False
        if self.last:
            return self.first <= here.line <= self.last
        return here.object == self.place.object


def suppressions(source: Source) -> list[Suppression]:
    """All of a file."""
    found = [*_comments(source)]
    for document in source.documents:
        found += of_object(document)
    return found


def of_object(document: Document) -> Iterator[Suppression]:
    """Those of an object."""
    for key, node in document.node.get("metadata", "annotations").items.items():
        if key.startswith(ANNOTATION):
            place = Place(document.file, node.line, document.title)
            yield Suppression(key.removeprefix(ANNOTATION), node.text.strip(), place)


def _comments(source: Source) -> Iterator[Suppression]:
    spans = [one for document in source.documents for one in document.spans]
    for number, line in enumerate(source.lines, 1):
        match = _COMMENT.search(line)
        if not match:
            continue
        first = number
        if not line[: match.start()].strip():
            first = next((at for at, text in enumerate(source.lines[number:], number + 1) if _counts(text)), number)
        last = max((end for begin, end in spans if begin == first), default=first)
        if line[: match.start()].strip():
            last = first if source.file.endswith(".toml") else last
        yield Suppression(match["rule"] or "", match["reason"].strip(), Place(source.file, number), first, last)


def _counts(line: str) -> bool:
    return bool(line.strip()) and not line.lstrip().startswith("#") and line.strip() != "---"


def settle(findings: Sequence[Finding], accepted: Sequence[Suppression]) -> tuple[list[Finding], list[Suppressed]]:
    """What is left, with what is wrong about the suppressions themselves; and what is accepted."""
    left: list[Finding] = []
    quiet: list[Suppressed] = []
    for finding in findings:
        by = next((one for one in accepted if one.covers(finding)), None)
        if by is None:
            left.append(finding)
        else:
            by.used = True
            quiet.append(Suppressed(finding, by.reason))
    for one in accepted:
        if one.rule not in RULES:
            left.append(_about(one, "JK090", f"no rule has the id {one.rule}" if one.rule else "it names no rule"))
        elif not one.reason:
            left.append(_about(one, "JK090", f"{one.rule} is to be ignored, without a reason"))
        elif not one.used:
            left.append(_about(one, "JK091", f"{one.rule} is not broken here"))
    return left, quiet


def _about(one: Suppression, rule: str, what: str) -> Finding:
    return Finding(RULES[rule], one.place, what, RULES[rule].severity)
