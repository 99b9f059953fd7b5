"""Findings in SARIF 2.1.0, as code hosts show them beside the lines of a change."""

from __future__ import annotations

from typing import Any

from jetkeep import __version__
from jetkeep.audit.findings import Finding, Report
from jetkeep.audit.rules import RULES

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"


def sarif(report: Report) -> dict[str, Any]:
    """The one run; what is suppressed is in it, with the reason."""
    order = list(RULES)
    results = [_result(one, order) for one in report.findings]
    for one in report.suppressed:
        accepted = {"kind": "inSource", "status": "accepted", "justification": one.reason}
        results.append({**_result(one.finding, order), "suppressions": [accepted]})
    unread = [
        {"level": "error", "message": {"text": f"{name}: {error.what}"}, "descriptor": {"id": error.code}}
        for name, error in report.unread
    ]
    invocation = {"executionSuccessful": not unread, "toolExecutionNotifications": unread}
    driver = {
        "name": "jetkeep audit",
        "semanticVersion": __version__,
        "rules": [
            {
                "id": rule.id,
                "name": rule.name,
                "shortDescription": {"text": rule.name.replace("-", " ")},
                "fullDescription": {"text": rule.why},
                "help": {"text": rule.fix},
                "defaultConfiguration": {"level": rule.severity.word},
            }
            for rule in RULES.values()
        ],
    }
    run = {"tool": {"driver": driver}, "invocations": [invocation], "results": results}
    return {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}


def _result(finding: Finding, order: list[str]) -> dict[str, Any]:
    place = finding.place
    location: dict[str, Any] = {}
    if place.file not in ("-", "live"):
        location["physicalLocation"] = {"artifactLocation": {"uri": place.file.replace("\\", "/")}}
        if place.line:
            location["physicalLocation"]["region"] = {"startLine": place.line}
    if place.object:
        location["logicalLocations"] = [{"fullyQualifiedName": place.object, "kind": "object"}]
    return {
        "ruleId": finding.rule.id,
        "ruleIndex": order.index(finding.rule.id),
        "level": finding.severity.word,
        "message": {"text": f"{finding.what}: {finding.rule.why}. {finding.rule.fix}."},
        "locations": [location] if location else [],
    }
