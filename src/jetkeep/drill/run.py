"""One drill from the choice of the server to the evidence."""

from __future__ import annotations

import asyncio
import hashlib
import os
import platform
import random
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from jetkeep import evidence
from jetkeep.catalog import Chosen
from jetkeep.config import ConnectionSettings
from jetkeep.drill import sample, user_check
from jetkeep.drill.document import Facts, document
from jetkeep.drill.neutral import neutral
from jetkeep.drill.phases import Phases
from jetkeep.drill.redaction import secrets_of
from jetkeep.drill.streams import StreamFindings, compare_consumers, compare_messages, found_in
from jetkeep.drill.user_check import UserCheck
from jetkeep.errors import ComparisonError, JetkeepError, PartialError, ServerError
from jetkeep.jetstream import JetStream, connect
from jetkeep.model import Emit, JsonDict
from jetkeep.repository import encoding, layout
from jetkeep.repository.documents import Backup, Manifest
from jetkeep.repository.repository import Repository
from jetkeep.restore.decisions import RestoreOptions
from jetkeep.restore.fields import Version
from jetkeep.restore.run import restore
from jetkeep.sandbox import Sandbox, find_binary, pinned_versions

if TYPE_CHECKING:
    from jetkeep.evidence.signing import Signer

Verdict = Literal["SUCCESSFUL", "FAILED", "TIMED_OUT"]
USER = "drill"
MAX_PAYLOAD = 64 * 1024 * 1024
#: Whatever the machine has: a full disk says so itself, and the server's own guess is three quarters of what is free.
MAX_STORE = 1 << 60
ROOM_FACTOR = 1.2
#: A drill a quarter is what auditors of DORA and SOC 2 ask for at least; NIS2's template wants a failed one repeated
#: within 30 days.
NEXT_DUE_DAYS = 30


@dataclass(frozen=True, slots=True)
class DrillOptions:
    """How to rehearse.

    `version` of the server (None: of the backup's own release where that is on this machine, else the installed one);
    `sample`: messages of each stream that are compared byte by byte, chosen by `seed`; `command`: the user's check;
    `whole`: all streams of the backup are meant, so one that failed in it is missing. `rto_target_s`, `rpo_target_s`: a
    drill that takes longer, or a backup that is older, fails. `behind`: messages of each stream that the source has and
    the backup has not, None where it was not asked, or did not answer: `unanswered` says why. `signer`: of the evidence; None leaves it unsigned.
    """

    version: str | None = None
    sample: int = 30
    command: str | None = None
    command_timeout_s: float = 600.0
    seed: int = 0
    whole: bool = True
    chosen: str = "latest"
    triggered_by: str = "command line"
    operator: str = ""
    rto_target_s: float | None = None
    rpo_target_s: float | None = None
    next_due_days: int = NEXT_DUE_DAYS
    behind: Mapping[str, int] | None = None
    unanswered: JetkeepError | None = None
    signer: Signer | None = None


@dataclass(slots=True)
class DrillReport:
    """What was found; `document` was kept as evidence under `key`, unless `unkept` says why it, or its page, could not be.

    `missed`: everything came back, and not within the targets.
    """

    drill_id: str
    started_ns: int
    server_version: str
    verdict: Verdict = "FAILED"
    finished_ns: int = 0
    streams: list[StreamFindings] = field(default_factory=list)
    phases: dict[str, float] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    rpo_seconds: float = 0.0
    rto_seconds: float = 0.0
    seconds: float = 0.0
    check: UserCheck | None = None
    status: int = 0
    missed: bool = False
    key: str = ""
    unkept: JetkeepError | None = None
    document: JsonDict = field(default_factory=dict)

    def fail(self, what: str, status: int = ComparisonError.exit_status) -> None:
        """Note a failure; the first one decides the exit status."""
        self.failures.append(what)
        self.status = self.status or status

    @property
    def required_action(self) -> str:
        """What has to be done; empty when nothing has to."""
        if self.verdict == "SUCCESSFUL":
            return ""
        if self.missed:
            return (
                "recover faster, or back up more often, or set targets that can be met; then drill again within 30 days"
            )
        if self.check is not None and not self.check.passed:
            return "find out why the check refused what was restored, then drill again within 30 days"
        return "run `jetkeep verify`, find the cause, take a new backup and drill that; within 30 days"


async def drill(
    repository: Repository,
    backup: Backup,
    chosen: Sequence[Chosen],
    options: DrillOptions,
    *,
    emit: Emit,
    now_ns: Callable[[], int] = time.time_ns,
) -> DrillReport:
    """Restore the chosen streams of a backup into a throw-away server, compare, and keep the evidence.

    A drill that fails is evidence too: it is kept, and the report says so. Durable on return.

    Raises:
        ServerError: the throw-away server could not be had or started: nothing was proven either way.
        UsageError: there is no such server version.
        StoreError: the backup is gone.
    """
    check_room(chosen)
    began_ns = now_ns()
    commit = await repository.store.read(layout.backup_key(backup.label), encoding.MAX_DOCUMENT)
    phases = Phases()
    # Meanwhile: what the evidence needs must not lengthen the drill.
    prepared = asyncio.create_task(_prepare(repository))
    password = secrets.token_hex(16)
    sandbox = None
    try:
        with phases.phase("start server"):
            sandbox = await _start(options.version or _own_release(backup), password)
        report = DrillReport(secrets.token_hex(6), began_ns, sandbox.version)
        report.phases = phases.seconds
        settings = ConnectionSettings(servers=(sandbox.url,), user=USER, password=password)
        try:
            async with connect(settings) as js:
                await _rehearse(repository, js, chosen, options, report, phases, emit, now_ns)
            if options.command and not report.failures:
                await _user_check(sandbox.url, password, backup.label, options, report, phases)
        except JetkeepError as failure:
            report.fail(f"{failure.what} [{failure.code}]", failure.exit_status)
    except BaseException:
        prepared.cancel()
        raise
    finally:
        if sandbox:
            sandbox.close()
    captured = min((one.manifest.captured_at_ns for one in chosen), default=int(backup.started.timestamp() * 1e9))
    report.rpo_seconds = max(0.0, (began_ns - captured) / 1e9)
    report.rto_seconds, report.seconds, report.finished_ns = phases.rto_s, phases.total_s, now_ns()
    _judge(report, options, missing=options.whole and any(one.status == "failed" for one in backup.streams))
    facts = Facts(
        repository.id,
        repository.url,
        backup,
        hashlib.sha256(commit).hexdigest(),
        chosen,
        options,
        platform.node(),
    )
    report.document = document(report, facts, [password, *secrets_of(os.environ)])
    await _keep(repository, report, prepared, options.signer)
    return report


def _judge(report: DrillReport, options: DrillOptions, *, missing: bool) -> None:
    """The verdict, once everything was measured."""
    if not report.failures:
        for name, measured, target in (
            ("RTO", report.rto_seconds, options.rto_target_s),
            ("RPO", report.rpo_seconds, options.rpo_target_s),
        ):
            if target is not None and measured > target:
                report.missed = True
                report.fail(f"{name}: {round(measured, 2):g} s, the target is {target:g} s")
    if not report.failures:
        report.verdict = "SUCCESSFUL"
        report.status = PartialError.exit_status if missing else 0
    elif report.check is not None and report.check.status is None:
        report.verdict = "TIMED_OUT"


async def _prepare(repository: Repository) -> evidence.Place | JetkeepError:
    """Find the evidence that this one will follow; a failure is told when the result is."""
    try:
        return await evidence.next_place(repository)
    except JetkeepError as failure:
        return failure


async def _keep(
    repository: Repository,
    report: DrillReport,
    prepared: asyncio.Task[evidence.Place | JetkeepError],
    signer: Signer | None,
) -> None:
    try:
        place = await prepared
        if isinstance(place, JetkeepError):
            place = await evidence.next_place(repository)
        kept, page = await evidence.keep(repository, report.document, place, signer)
        report.key, report.document = kept.key, kept.body
        await evidence.keep_page(repository, kept, page)
    except JetkeepError as unkept:
        report.unkept = unkept
        report.status = report.status or unkept.exit_status


def check_room(chosen: Sequence[Chosen]) -> None:
    """Before a server is started.

    Raises:
        ServerError: the streams will not fit where temporary files go.
    """
    place = tempfile.gettempdir()
    need = int(ROOM_FACTOR * sum(one.manifest.bytes + 18 * one.manifest.messages for one in chosen))
    free = shutil.disk_usage(place).free
    if need > free:
        raise ServerError(
            f"the restored streams need {need:,} bytes, and {place} has {free:,} free",
            code="sandbox.room",
            means="nothing was started, and nothing proven either way",
            hint="let TMPDIR name a directory with more room, or drill some streams only",
        )


def _own_release(backup: Backup) -> str | None:
    """The pinned version of the backup's own release, if it is on this machine."""
    release = ".".join(backup.server.version.split(".")[:2])
    version = next((one for one in reversed(pinned_versions()) if one.startswith(release + ".")), None)
    return version if version and find_binary(version) else None


async def _start(version: str | None, password: str) -> Sandbox:
    config = {
        "max_payload": MAX_PAYLOAD,
        "max_pending": 4 * MAX_PAYLOAD,
        "jetstream": {"max_file_store": MAX_STORE, "max_memory_store": MAX_STORE},
        "authorization": {"user": USER, "password": password},
    }
    # In a thread: the version may have to be fetched, and leases must be renewed meanwhile.
    sandbox = await asyncio.to_thread(Sandbox, version, config)
    try:
        await sandbox.start()
    except BaseException:
        sandbox.close()
        raise
    return sandbox


async def _rehearse(
    repository: Repository,
    js: JetStream,
    chosen: Sequence[Chosen],
    options: DrillOptions,
    report: DrillReport,
    phases: Phases,
    emit: Emit,
    now_ns: Callable[[], int],
) -> None:
    server = Version.of(report.server_version)
    made = {one.entry.name: neutral(one.manifest, server) for one in chosen}
    originals = {one.entry.name: one.manifest for one in chosen}
    manifests = [manifest for manifest, _ in made.values()]
    restored = await restore(repository, js, manifests, RestoreOptions(), emit=emit, now_ns=now_ns)
    phases.restored(restored)
    chance = random.Random(options.seed)  # noqa: S311 - a sample that can be drawn again, not a secret
    used_up: list[Manifest] = []
    for done in sorted(restored.streams, key=lambda one: one.step.name):
        name = done.step.name
        manifest, changed = made[name]
        findings = StreamFindings(originals[name], found_in(done), changed=changed)
        report.streams.append(findings)
        if done.error is not None:
            findings.error = done.error.to_dict()
            findings.wrong.append(f"{done.error.what} [{done.error.code}]")
            report.fail(f"{name}: {findings.wrong[0]}", done.error.exit_status)
            continue
        with phases.phase("compare consumers"):
            compare_messages(findings, done, (await js.stream_info(name))["state"])
            compare_consumers(findings, done, await js.consumers(name))
        with phases.phase("compare sample"):
            wanted = await sample.choose(repository, manifest, options.sample, chance)
            sampled = await sample.compare(js, manifest, wanted)
        findings.sample = {"compared": sampled.compared, "left_out": sampled.left_out}
        findings.wrong += sampled.differences
        for what in findings.wrong:
            report.fail(f"{name}: {what}")
        if sampled.compared and sample.consumes(manifest):
            used_up.append(manifest)
    if used_up and options.command and not report.failures:
        with phases.phase("restore queues again"):
            await _again(repository, js, used_up, report, emit, now_ns)


async def _again(
    repository: Repository,
    js: JetStream,
    manifests: Sequence[Manifest],
    report: DrillReport,
    emit: Emit,
    now_ns: Callable[[], int],
) -> None:
    """Give the user's check the queues as they were: the sample has taken messages from them."""
    for one in manifests:
        await js.delete_stream(one.stream)
    again = await restore(repository, js, manifests, RestoreOptions(), emit=emit, now_ns=now_ns)
    for failed in again.failed:
        assert failed.error is not None
        report.fail(f"{failed.step.name}: {failed.error.what} [{failed.error.code}]", failed.error.exit_status)


async def _user_check(
    url: str, password: str, label: str, options: DrillOptions, report: DrillReport, phases: Phases
) -> None:
    assert options.command is not None
    with_login = url.replace("://", f"://{USER}:{password}@", 1)
    variables = {
        "NATS_URL": with_login,
        "JETKEEP_DRILL_URL": with_login,
        "JETKEEP_DRILL_BACKUP": label,
        "JETKEEP_DRILL_ID": report.drill_id,
    }
    with phases.phase("user check"):
        report.check = await user_check.run(options.command, variables, options.command_timeout_s)
    if report.check.status is None:
        report.fail(f"the user's check did not end within {options.command_timeout_s:g} s")
    elif not report.check.passed:
        report.fail(f"the user's check ended with status {report.check.status}")
