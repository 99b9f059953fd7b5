"""Let go of backups that no rule keeps, in an order that never harms another (docs/format.md, *delete order*)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from jetkeep.errors import BadDataError
from jetkeep.model import Emit, Notice
from jetkeep.repository import layout
from jetkeep.repository.documents import Backup, Manifest
from jetkeep.repository.leases import Lease, lease, locked
from jetkeep.repository.pins import pins as all_pins
from jetkeep.repository.repository import Damage, Repository
from jetkeep.retention import Candidate, Decision, Policy, decide

GRACE_NS = 24 * 3600 * 10**9


@dataclass(slots=True)
class ExpireReport:
    """What was decided, and what was done: with `dry_run` nothing was.

    `held` are labels that stay for now because a lease names them; `freed_bytes` counts the deleted objects.
    """

    decisions: list[Decision]
    dry_run: bool
    expired: list[str] = field(default_factory=list)
    held: list[str] = field(default_factory=list)
    deleted_objects: int = 0
    freed_bytes: int = 0
    kept_back: str = ""


async def expire(
    repository: Repository,
    policy: Policy,
    *,
    now_ns: Callable[[], int],
    emit: Emit,
    dry_run: bool = False,
    grace_ns: int = GRACE_NS,
) -> ExpireReport:
    """Decide by the policy and delete: backup objects, then manifests, then segments that nothing names.

    A crash at any moment costs nothing that a remaining backup needs; the next run deletes what was left over.

    Raises:
        UsageError: the policy has no rule.
        LockedError: another expire is at work.
        BadDataError: a backup or manifest that stays is damaged: what it needs is not known, so nothing is deleted.
    """
    whole, damage = await repository.backups()
    decisions = decide(await _candidates(repository, whole), policy, datetime.fromtimestamp(now_ns() / 1e9, UTC))
    report = ExpireReport(decisions, dry_run)
    if dry_run:
        return report
    _refuse_damage(damage)
    async with lease(repository.store, "expire", now_ns=now_ns) as own:
        others = await own.others()
        if rivals := [one for one in others if one.purpose == "expire"]:
            raise locked(rivals[0])
        # Again, now that others can see us: a backup that was committed or pinned since must count.
        whole, damage = await repository.backups()
        _refuse_damage(damage)
        report.decisions = decide(
            await _candidates(repository, whole), policy, datetime.fromtimestamp(now_ns() / 1e9, UTC)
        )
        protected = {label for one in others for label in one.labels}
        by_label = {backup.label: backup for backup in whole}
        for decision in report.decisions:
            label = decision.candidate.label
            if decision.keep:
                continue
            if label in protected:
                report.held.append(label)
                emit(Notice(f"backup {label} stays for now: somebody reads it"))
                continue
            await repository.store.delete(layout.backup_key(label))
            report.expired.append(label)
        gone = [by_label[label] for label in report.expired]
        stay = [backup for label, backup in by_label.items() if label not in set(report.expired)]
        await _sweep(repository, own, gone, stay, report, now_ns, grace_ns)
    return report


def _refuse_damage(damage: Sequence[Damage]) -> None:
    if damage:
        raise BadDataError(
            f"{damage[0].key} is damaged, so it is not known what it needs",
            code=damage[0].error.code,
            means="nothing was expired",
            hint="run `jetkeep verify`; take the damaged object away by hand when its backup is lost for good",
        )


async def _candidates(repository: Repository, whole: Sequence[Backup]) -> list[Candidate]:
    pins = await all_pins(repository)
    return [
        Candidate(
            label=backup.label,
            source=backup.source,
            started=datetime.fromisoformat(backup.started_at.replace("Z", "+00:00")),
            complete=backup.status == "complete",
            tags=frozenset(backup.tags),
            pinned=pins[backup.label].reason if backup.label in pins else None,
        )
        for backup in whole
    ]


async def _sweep(
    repository: Repository,
    own: Lease,
    gone: Sequence[Backup],
    stay: Sequence[Backup],
    report: ExpireReport,
    now_ns: Callable[[], int],
    grace_ns: int,
) -> None:
    """Delete manifests and segments that no remaining backup names."""
    others = await own.others()
    if any(one.purpose in ("backup", "import") for one in others):
        report.kept_back = "a backup is at work: what it may use stays until the next run"
        return
    named = await _named(repository, stay)
    reading = {label for one in others for label in one.labels}
    for backup in gone:
        if backup.label in reading:
            # Its reader began before the backup object went: everything it needs stays until the next run.
            named |= await _names_of(repository, backup)
    now = now_ns()
    expired_manifests = {entry.manifest.key for backup in gone for entry in backup.streams if entry.manifest}
    manifests, segments = [], []
    async for info in repository.store.list(layout.SOURCES):
        if info.key in named:
            continue
        old = now - info.modified_ns > grace_ns
        if "/manifests/" in info.key and (old or info.key in expired_manifests):
            manifests.append(info)
        elif "/segments/" in info.key and old:
            segments.append(info)
    for info in (*manifests, *segments):
        await repository.store.delete(info.key)
        report.deleted_objects += 1
        report.freed_bytes += info.size
    for label in report.expired:
        await repository.store.delete(layout.pin_key(label))


async def _named(repository: Repository, backups: Sequence[Backup]) -> set[str]:
    named: set[str] = set()
    for backup in backups:
        named |= await _names_of(repository, backup)
    return named


async def _names_of(repository: Repository, backup: Backup) -> set[str]:
    """Every key that a backup needs."""
    named: set[str] = set()
    for entry in backup.streams:
        if entry.manifest is not None:
            manifest: Manifest = await repository.read_manifest(backup, entry)
            named.add(entry.manifest.key)
            named.update(ref.key for ref in manifest.segments)
    return named
