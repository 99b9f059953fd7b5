"""One drill from the choice of the backup to the evidence."""

from __future__ import annotations

import platform
import random
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

from jetkeep import __version__, evidence
from jetkeep.catalog import Chosen
from jetkeep.config import ConnectionSettings
from jetkeep.drill import sample, user_check
from jetkeep.drill.neutral import neutral
from jetkeep.drill.user_check import UserCheck
from jetkeep.errors import JetkeepError
from jetkeep.jetstream import JetStream, connect
from jetkeep.model import Emit, JsonDict
from jetkeep.repository.documents import Manifest
from jetkeep.repository.repository import Repository
from jetkeep.restore.decisions import RestoreOptions
from jetkeep.restore.fields import Version
from jetkeep.restore.report import RestoreReport, StreamReport
from jetkeep.restore.run import restore
from jetkeep.sandbox import Sandbox

Verdict = Literal["SUCCESSFUL", "FAILED", "TIMED_OUT"]
SEGREGATION = (
    "Restored into a nats-server process that was started for this drill, listening on loopback only, with its own "
    "empty temporary directory, no routes, no leaf nodes and no credentials of any other system; removed afterwards. It ran "
    "on the machine that is named as host: for segregation from production run the drill elsewhere."
)
#: A drill a quarter is what DORA's and SOC 2's auditors ask for at least; ours is stricter.
NEXT_DUE_DAYS = 30


@dataclass(frozen=True, slots=True)
class DrillOptions:
    """How to rehearse. `version` of the server (None: the newest that is installed); `sample` messages a stream."""

    version: str | None = None
    sample: int = 30
    command: str | None = None
    command_timeout_s: float = 600.0
    seed: int = 0
    chosen: str = "latest"
    triggered_by: str = "command line"


@dataclass(slots=True)
class DrillReport:
    """What was found; `document` is what was kept as evidence under `key`."""

    drill_id: str
    verdict: Verdict
    streams: list[JsonDict]
    phases: dict[str, float]
    failures: list[str]
    server_version: str
    rpo_seconds: float
    rto_seconds: float
    key: str = ""
    check: UserCheck | None = None
    document: JsonDict = field(default_factory=dict)


async def drill(
    repository: Repository,
    chosen: Sequence[Chosen],
    options: DrillOptions,
    *,
    emit: Emit,
    now_ns: Callable[[], int] = time.time_ns,
) -> DrillReport:
    """Restore the chosen streams of one backup into a throw-away server, compare, and keep the evidence.

    A drill that fails is evidence too: it is kept, and the report says so. Durable on return.

    Raises:
        ServerError: the throw-away server could not be had or started: nothing was proven either way.
        StoreError: the evidence could not be stored.
    """
    backup = chosen[0].backup
    started_ns = now_ns()
    report = DrillReport(secrets.token_hex(6), "FAILED", [], {}, [], "", 0.0, 0.0)
    captured = min((one.manifest.captured_at_ns for one in chosen), default=started_ns)
    report.rpo_seconds = max(0.0, (started_ns - captured) / 1e9)
    clock = _Phases(report.phases)
    with_config = {"max_payload": 64 * 1024 * 1024, "max_pending": 256 * 1024 * 1024}
    sandbox = Sandbox(options.version, with_config)
    try:
        with clock.phase("start server"):
            await sandbox.start()
        report.server_version = sandbox.version
        async with connect(ConnectionSettings(servers=(sandbox.url,))) as js:
            await _rehearse(repository, js, chosen, options, report, clock, emit, now_ns)
        if options.command and not report.failures:
            await _user_check(sandbox.url, backup.label, options, report, clock)
    except JetkeepError as failure:
        if not report.server_version:
            raise
        report.failures.append(f"{failure.what} [{failure.code}]")
    finally:
        sandbox.close()
    if not report.failures:
        report.verdict = "SUCCESSFUL"
    elif report.check is not None and report.check.status is None:
        report.verdict = "TIMED_OUT"
    report.rto_seconds = sum(report.phases.values())
    report.document = _document(repository, chosen, options, report, started_ns, now_ns())
    report.key = await evidence.keep(repository, backup.label, report.drill_id, report.document)
    return report


async def _rehearse(
    repository: Repository,
    js: JetStream,
    chosen: Sequence[Chosen],
    options: DrillOptions,
    report: DrillReport,
    clock: _Phases,
    emit: Emit,
    now_ns: Callable[[], int],
) -> None:
    server = Version.of(report.server_version)
    manifests = [neutral(one.manifest, server) for one in chosen]
    began = time.monotonic()
    restored = await restore(repository, js, manifests, RestoreOptions(), emit=emit, now_ns=now_ns)
    clock.split(restored, time.monotonic() - began)
    chance = random.Random(options.seed)  # noqa: S311 - a sample that can be drawn again, not a secret
    with clock.phase("compare sample"):
        for one, done in zip(_sorted(manifests, restored), restored.streams, strict=True):
            report.streams.append(await _stream(repository, js, one, done, options.sample, chance, report.failures))


def _sorted(manifests: Sequence[Manifest], restored: RestoreReport) -> list[Manifest]:
    by_name = {one.stream: one for one in manifests}
    return [by_name[done.step.manifest.stream] for done in restored.streams]


async def _stream(
    repository: Repository,
    js: JetStream,
    manifest: Manifest,
    done: StreamReport,
    size: int,
    chance: random.Random,
    failures: list[str],
) -> JsonDict:
    expected = {
        "messages": manifest.messages,
        "first_seq": manifest.first_seq,
        "last_seq": manifest.last_seq,
        "fingerprint": manifest.fingerprint,
        "consumers": len(manifest.consumers),
    }
    result: JsonDict = {"stream": manifest.stream, "expected": expected, "found": None, "verdict": "FAILED"}
    result["gaps"] = [{"set": gap.set, "reason": gap.reason} for gap in manifest.gaps]
    if done.error is not None:
        result["error"] = done.error.to_dict()
        failures.append(f"{manifest.stream}: {done.error.what} [{done.error.code}]")
        return result
    info = await js.stream_info(manifest.stream)
    state = info["state"]
    consumers = {str(one["name"]) for one in await js.consumers(manifest.stream)}
    found = {key: int(state[key]) for key in ("messages", "first_seq", "last_seq")}
    # The restore opened the stream only after its messages had this fingerprint and its consumers these states.
    result["found"] = {**found, "fingerprint": manifest.fingerprint, "consumers": len(consumers)}
    result["differences"] = [one.to_dict() for one in done.step.differences]
    wrong = [
        f"{key} is {found[key]}, not {expected[key]}" for key in ("messages", "last_seq") if found[key] != expected[key]
    ]
    missing = sorted({one.name for one in manifest.consumers} - consumers)
    wrong += [f"consumer {name} is not there" for name in missing]
    wanted = await sample.choose(repository, manifest, size, chance)
    sampled = await sample.compare(js, manifest.stream, wanted, queue=manifest.config.get("retention") == "workqueue")
    result["sample"] = {"compared": sampled.compared, "differences": sampled.differences[:20]}
    wrong += sampled.differences[:20]
    failures.extend(f"{manifest.stream}: {text}" for text in wrong)
    result["verdict"] = "FAILED" if wrong else "SUCCESSFUL"
    return result


async def _user_check(url: str, label: str, options: DrillOptions, report: DrillReport, clock: _Phases) -> None:
    assert options.command is not None
    variables = {"NATS_URL": url, "JETKEEP_DRILL_URL": url, "JETKEEP_DRILL_BACKUP": label}
    with clock.phase("user check"):
        report.check = await user_check.run(options.command, variables, options.command_timeout_s)
    if report.check.status is None:
        report.failures.append(f"the user's check did not end within {options.command_timeout_s:g} s")
    elif not report.check.passed:
        report.failures.append(f"the user's check ended with {report.check.status}")


class _Phases:
    """Seconds by phase."""

    def __init__(self, seconds: dict[str, float]) -> None:
        self._seconds = seconds

    def phase(self, name: str) -> _Phase:
        return _Phase(self._seconds, name)

    def split(self, restored: RestoreReport, wall: float) -> None:
        """Share a restore's wall time over its phases in the proportion that its streams report: they overlap."""
        spent: dict[str, float] = {}
        for one in restored.streams:
            for phase, value in one.seconds.items():
                spent[phase] = spent.get(phase, 0.0) + value
        total = sum(spent.values())
        for phase, value in spent.items():
            self._seconds[phase] = value / total * wall if total else 0.0
        if not total:
            self._seconds["restore"] = wall


class _Phase:
    def __init__(self, seconds: dict[str, float], name: str) -> None:
        self._seconds, self._name = seconds, name

    def __enter__(self) -> None:
        self._began = time.monotonic()

    def __exit__(self, *_: object) -> None:
        self._seconds[self._name] = self._seconds.get(self._name, 0.0) + time.monotonic() - self._began


def _document(
    repository: Repository,
    chosen: Sequence[Chosen],
    options: DrillOptions,
    report: DrillReport,
    started_ns: int,
    finished_ns: int,
) -> JsonDict:
    backup = chosen[0].backup
    check = report.check
    return {
        "schema": "jetkeep.evidence/1",
        "drill_id": report.drill_id,
        "verdict": report.verdict,
        "started_at": _rfc3339(started_ns),
        "finished_at": _rfc3339(finished_ns),
        "next_due": _rfc3339(finished_ns + NEXT_DUE_DAYS * 86400 * 10**9),
        "triggered_by": options.triggered_by,
        "host": platform.node(),
        "tool": {"name": "jetkeep", "version": __version__},
        "repository": repository.id,
        "backup": {
            "label": backup.label,
            "chosen": options.chosen,
            "source": backup.source,
            "status": backup.status,
            "started_at": backup.started_at,
            "server_version": backup.server.version,
            "manifests": {one.entry.name: one.entry.manifest.sha256 for one in chosen if one.entry.manifest},
        },
        "server": {"version": report.server_version, "segregation": SEGREGATION},
        "rpo": {"seconds": round(report.rpo_seconds, 3), "messages": None},
        "rto": {
            "seconds": round(report.rto_seconds, 3),
            "phases": {name: round(value, 3) for name, value in report.phases.items()},
        },
        "sample": {"size": options.sample, "seed": options.seed},
        "streams": report.streams,
        "user_check": None
        if check is None
        else {
            "command": check.command,
            "status": check.status,
            "seconds": round(check.seconds, 3),
            "output": check.output,
        },
        "failures": report.failures,
        "required_action": ""
        if report.verdict == "SUCCESSFUL"
        else "find the cause, take a new backup, drill it again",
    }


def _rfc3339(ns: int) -> str:
    return datetime.fromtimestamp(ns / 1e9, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
