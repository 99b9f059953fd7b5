"""The evidence of a drill as a document (docs/reference/evidence.md). Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from jetkeep import __version__
from jetkeep.catalog import Chosen
from jetkeep.drill.phases import RECOVERY
from jetkeep.drill.redaction import HIDDEN, redacted
from jetkeep.model import JsonDict
from jetkeep.repository.documents import Backup

if TYPE_CHECKING:
    from jetkeep.drill.run import DrillOptions, DrillReport

SCHEMA = "jetkeep.evidence/1"
SEGREGATION = (
    "Restored into a nats-server process that was started for this drill: on loopback only, with a password of its own, "
    "an empty temporary directory, no routes, gateways or leaf nodes, and no credentials of any other system; streams were "
    "restored without mirrors, sources and republishing, so nothing in it could reach another server. The process and the "
    "directory were removed afterwards. It ran on the machine that is named as host; the user's check, if there was one, "
    "ran there as well, with that machine's network: for segregation from production run the drill elsewhere."
)
_NOT_ASKED = "not known: the source was not asked (--ask-source)"
_ASKED = "messages that the source had when the drill began and the backup has not"


@dataclass(frozen=True, slots=True)
class Facts:
    """What was drilled: the repository's id and place, the backup and the digest of its object, its streams, and how."""

    repository: str
    url: str
    backup: Backup
    sha256: str
    streams: Sequence[Chosen]
    options: DrillOptions
    host: str

    @property
    def sealed(self) -> bool:
        """The backup keeps its streams' fingerprints to who can open it."""
        return any(not one.entry.fingerprint for one in self.streams)


def document(report: DrillReport, facts: Facts, secrets: Sequence[str]) -> JsonDict:
    """Everything that was expected and found. No secret is in it, as far as one can be recognised.

    Evidence is not sealed, auditors read it: so of a sealed repository it holds no fingerprint and no output of the check,
    by which who has the bucket could confirm or read what is sealed.
    """
    options = facts.options
    if facts.sealed:
        secrets = [*secrets, *_fingerprints(report)]
    return {
        "schema": SCHEMA,
        "drill_id": report.drill_id,
        "verdict": report.verdict,
        "started_at": rfc3339(report.started_ns),
        "finished_at": rfc3339(report.finished_ns),
        "next_due": rfc3339(report.finished_ns + options.next_due_days * 86400 * 10**9),
        "triggered_by": redacted(options.triggered_by, secrets),
        "operator": options.operator,
        "host": facts.host,
        "tool": {"name": "jetkeep", "version": __version__},
        "repository": facts.repository,
        "repository_url": redacted(facts.url, secrets),
        "backup": _backup(facts),
        "server": {"version": report.server_version, "segregation": SEGREGATION},
        "rpo": _rpo(report, facts),
        "rto": {
            **_against(report.rto_seconds, options.rto_target_s),
            "phases": {name: round(value, 3) for name, value in report.phases.items()},
            "counted": [name for name in RECOVERY if name in report.phases],
        },
        "seconds": round(report.seconds, 3),
        "sample": {"size": options.sample, "seed": options.seed},
        "streams": [_without(one.to_dict(), _fingerprints(report) if facts.sealed else ()) for one in report.streams],
        "user_check": _user_check(report, secrets, output=not facts.sealed),
        "failures": [redacted(one, secrets) for one in report.failures],
        "required_action": report.required_action,
    }


def _backup(facts: Facts) -> JsonDict:
    backup = facts.backup
    drilled = {one.entry.name for one in facts.streams}
    return {
        "label": backup.label,
        "sha256": facts.sha256,
        "chosen": facts.options.chosen,
        "source": backup.source,
        "account": backup.server.account,
        "status": backup.status,
        "started_at": backup.started_at,
        "server_version": backup.server.version,
        "manifests": [
            {"stream": one.entry.name, "sha256": one.entry.manifest.sha256}
            for one in facts.streams
            if one.entry.manifest
        ],
        "not_drilled": [
            {"stream": one.name, "reason": one.error.what if one.error else "not asked for"}
            for one in backup.streams
            if one.name not in drilled
        ],
    }


def _rpo(report: DrillReport, facts: Facts) -> JsonDict:
    newest = max((one.manifest.last_ts_ns for one in facts.streams), default=0)
    behind = facts.options.behind
    return {
        **_against(report.rpo_seconds, facts.options.rpo_target_s),
        "captured_at": rfc3339(report.started_ns - round(report.rpo_seconds * 1e9)),
        "newest_message_at": rfc3339(newest) if newest else None,
        "messages": None if behind is None else sum(behind.values()),
        "messages_basis": _basis(facts.options),
        "messages_by_stream": [{"stream": name, "messages": count} for name, count in sorted((behind or {}).items())],
    }


def _basis(options: DrillOptions) -> str:
    if options.unanswered:
        return f"not known: the source did not answer ({options.unanswered.code})"
    return _NOT_ASKED if options.behind is None else _ASKED


def _against(seconds: float, target: float | None) -> JsonDict:
    met = None if target is None else seconds <= target
    return {"seconds": round(seconds, 3), "target_seconds": target, "met": met}


def _fingerprints(report: DrillReport) -> set[str]:
    found = {str(one.found["fingerprint"]) for one in report.streams if one.found}
    return found | {one.manifest.fingerprint for one in report.streams}


def _without(value: Any, secrets: Collection[str]) -> Any:
    """The value with these texts taken out of whatever is in it."""
    if isinstance(value, dict):
        return {key: _without(one, secrets) for key, one in value.items()}
    if isinstance(value, list):
        return [_without(one, secrets) for one in value]
    if isinstance(value, str):
        for secret in secrets:
            value = value.replace(secret, HIDDEN)
    return value


def _user_check(report: DrillReport, secrets: Sequence[str], *, output: bool) -> JsonDict | None:
    if (check := report.check) is None:
        return None
    return {
        "command": redacted(check.command, secrets),
        "status": check.status,
        "seconds": round(check.seconds, 3),
        "output": redacted(check.output, secrets) if output else HIDDEN,
    }


def rfc3339(ns: int) -> str:
    """A time in UTC, to the microsecond."""
    return datetime.fromtimestamp(ns // 1000 / 1e6, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
