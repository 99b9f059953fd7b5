"""The evidence of a drill as a document (docs/reference/evidence.md). Pure."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from jetkeep import __version__
from jetkeep.catalog import Chosen
from jetkeep.drill.redaction import redacted
from jetkeep.model import JsonDict
from jetkeep.repository.documents import Backup

if TYPE_CHECKING:
    from jetkeep.drill.run import DrillReport

SCHEMA = "jetkeep.evidence/1"
SEGREGATION = (
    "Restored into a nats-server process that was started for this drill: on loopback only, with a password of its own, "
    "an empty temporary directory, no routes, gateways or leaf nodes, and no credentials of any other system; streams were "
    "restored without mirrors, sources and republishing, so nothing in it could reach another server. The process and the "
    "directory were removed afterwards. It ran on the machine that is named as host; the user's check, if there was one, "
    "ran there as well, with that machine's network: for segregation from production run the drill elsewhere."
)
#: A drill a quarter is what auditors of DORA and SOC 2 ask for at least; NIS2's template wants a failed one repeated
#: within 30 days.
NEXT_DUE_DAYS = 30


@dataclass(frozen=True, slots=True)
class Facts:
    """What was drilled: the repository's id, the backup and the digest of its object, streams, and how they were chosen."""

    repository: str
    backup: Backup
    sha256: str
    streams: Sequence[Chosen]
    how: str
    triggered_by: str
    seed: int
    sample: int


def document(report: DrillReport, facts: Facts, secrets: Sequence[str]) -> JsonDict:
    """Everything that was expected and found. No secret is in it, as far as one can be recognised."""
    return {
        "schema": SCHEMA,
        "drill_id": report.drill_id,
        "verdict": report.verdict,
        "started_at": rfc3339(report.started_ns),
        "finished_at": rfc3339(report.finished_ns),
        "next_due": rfc3339(report.finished_ns + NEXT_DUE_DAYS * 86400 * 10**9),
        "triggered_by": facts.triggered_by,
        "host": platform.node(),
        "tool": {"name": "jetkeep", "version": __version__},
        "repository": facts.repository,
        "backup": _backup(facts),
        "server": {"version": report.server_version, "segregation": SEGREGATION},
        "rpo": _rpo(report, facts),
        "rto": {
            "seconds": round(report.rto_seconds, 3),
            "phases": {name: round(value, 3) for name, value in report.phases.items()},
        },
        "seconds": round(report.seconds, 3),
        "sample": {"size": facts.sample, "seed": facts.seed},
        "streams": [one.to_dict() for one in report.streams],
        "user_check": _user_check(report, secrets),
        "failures": [redacted(one, secrets) for one in report.failures],
        "required_action": report.required_action,
    }


def _backup(facts: Facts) -> JsonDict:
    backup = facts.backup
    drilled = {one.entry.name for one in facts.streams}
    return {
        "label": backup.label,
        "sha256": facts.sha256,
        "chosen": facts.how,
        "source": backup.source,
        "account": backup.server.account,
        "status": backup.status,
        "started_at": backup.started_at,
        "server_version": backup.server.version,
        "manifests": {one.entry.name: one.entry.manifest.sha256 for one in facts.streams if one.entry.manifest},
        "not_drilled": [
            {"stream": one.name, "reason": one.error.what if one.error else "not asked for"}
            for one in backup.streams
            if one.name not in drilled
        ],
    }


def _rpo(report: DrillReport, facts: Facts) -> JsonDict:
    newest = max((one.manifest.last_ts_ns for one in facts.streams), default=0)
    return {
        "seconds": round(report.rpo_seconds, 3),
        "captured_at": rfc3339(report.started_ns - round(report.rpo_seconds * 1e9)),
        "newest_message_at": rfc3339(newest) if newest else None,
        "messages": None,
    }


def _user_check(report: DrillReport, secrets: Sequence[str]) -> JsonDict | None:
    if (check := report.check) is None:
        return None
    return {
        "command": redacted(check.command, secrets),
        "status": check.status,
        "seconds": round(check.seconds, 3),
        "output": redacted(check.output, secrets),
    }


def rfc3339(ns: int) -> str:
    """A time in UTC, to the microsecond."""
    return datetime.fromtimestamp(ns // 1000 / 1e6, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
