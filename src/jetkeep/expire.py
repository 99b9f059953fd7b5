"""Let go of backups that no rule keeps, in an order that never harms another (docs/format.md, *delete order*)."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from jetkeep.errors import AccessDeniedError, BadDataError, JetkeepError, StoreFailedError
from jetkeep.model import Emit, Notice
from jetkeep.repository import layout, runs
from jetkeep.repository.documents import Backup, StreamEntry
from jetkeep.repository.leases import Lease, lease, locked, remove_dead_leases
from jetkeep.repository.locking import retained_until
from jetkeep.repository.pins import pins as all_pins
from jetkeep.repository.repository import Damage, Repository
from jetkeep.repository.sets import candidate_of, restore_points
from jetkeep.repository.store import ObjectInfo, delete_all, side_by_side
from jetkeep.retention import Decision, Policy, decide

#: Unnamed objects are left alone for so long: a writer whose lease nobody could see may be about to name them.
GRACE_NS = 24 * 3600 * 10**9
_UNFINISHED_NS = 24 * 3600 * 10**9
_CLOCK_SKEW_NS = 300 * 10**9


@dataclass(slots=True)
class ExpireReport:
    """What was decided, and what was done: with `dry_run` nothing was.

    `held` are labels that stay for now because a lease names them; `locked` those that the store itself keeps, with until when
    (nanoseconds since the epoch; None where it does not say); `freed_bytes` counts the deleted objects, or with
    `dry_run` those that a run now would delete. `kept_back` says why nothing was swept, empty when it was.
    """

    decisions: list[Decision]
    dry_run: bool
    expired: list[str] = field(default_factory=list)
    held: list[str] = field(default_factory=list)
    locked: dict[str, int | None] = field(default_factory=dict)
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
    Deletions are durable on return.

    Raises:
        UsageError: the policy has no rule.
        LockedError: another expire is at work, or this one was suspended for minutes.
        BadDataError: a backup or manifest that stays is damaged: what it needs is not known, so nothing is deleted.
        StoreFailedError: this machine's clock and the store's differ, so nobody's age is known.
    """
    if dry_run:
        backups = await _backups(repository)
        report = ExpireReport(await _decide(repository, backups, policy, now_ns()), dry_run)
        going = [one.candidate.label for one in report.decisions if not one.keep]
        report.locked = await _locked(repository, going, _together(backups), now_ns())
        stay, _ = _part(backups, [one for one in going if one not in report.locked])
        gone_manifests = _manifests(backups) - _manifests(stay)
        needed = await _needs_of_those_that_stay(repository, stay)
        rubbish = await _rubbish(repository, needed, gone_manifests, now_ns() - grace_ns)
        report.deleted_objects, report.freed_bytes = len(rubbish), sum(info.size for info in rubbish)
        return report
    async with lease(repository.store, "expire", now_ns=now_ns, tell=lambda words: emit(Notice(words))) as own:
        others = await own.others()
        if rivals := [one for one in others if one.purpose == "expire"]:
            raise locked(rivals[0])
        _compare_clocks(own)
        await remove_dead_leases(repository.store, now_ns() - own.ahead_ns)
        await repository.store.remove_unfinished(now_ns() - _UNFINISHED_NS)
        with contextlib.suppress(AccessDeniedError):  # they are small, and cost nothing but their names
            await runs.forget_old(repository, now_ns() - own.ahead_ns, own.check)
        # Only now, when others can see us: a backup that was committed or pinned before must count.
        backups = await _backups(repository)
        report = ExpireReport(await _decide(repository, backups, policy, now_ns()), dry_run)
        protected = {label for one in others for label in one.labels}
        together = _together(backups)
        going = [one.candidate.label for one in report.decisions if not one.keep]
        report.locked = await _locked(repository, going, together, now_ns())
        for label in (one for one in going if one not in report.locked):
            (report.held if protected & {*together[label], "*"} else report.expired).append(label)
        for label in report.held:
            emit(Notice(f"backup {label} stays for now: somebody reads it"))
        stay, gone = _part(backups, report.expired)
        needed = await _needs_of_those_that_stay(repository, stay)  # before anything is deleted: one may be damaged
        await own.confirm()
        kept = await delete_all(repository.store, [layout.backup_key(one.label) for one in gone], own.check)
        await repository.store.sync()
        for label in [one for one in report.expired if layout.backup_key(one) in kept]:
            report.expired.remove(label)
            report.locked[label] = None
        report.kept_back = await _sweep(repository, own, report, gone, stay, needed, now_ns() - grace_ns)
        if report.kept_back:
            emit(Notice(f"unneeded objects stay until the next run: {report.kept_back}"))
    return report


async def _backups(repository: Repository) -> list[Backup]:
    whole, damage = await repository.backups()
    _refuse_damage(damage)
    return whole


def _refuse_damage(damage: Sequence[Damage]) -> None:
    if damage:
        raise _unknown_needs(damage[0].error)


def _unknown_needs(error: JetkeepError) -> BadDataError:
    return BadDataError(
        f"it is not known what a backup that stays needs: {error.what}",
        code=error.code,
        means="nothing was expired",
        hint="run `jetkeep verify`; take the damaged object away by hand when its backup is lost for good",
    )


async def _decide(repository: Repository, backups: Sequence[Backup], policy: Policy, now_ns: int) -> list[Decision]:
    pins = await all_pins(repository)
    pairs = [
        (candidate_of(point, {label: pin.reason for label, pin in pins.items()}), point)
        for point in restore_points(backups)
    ]
    members = {id(candidate): point.members for candidate, point in pairs}
    decisions = decide([candidate for candidate, _ in pairs], policy, datetime.fromtimestamp(now_ns / 1e9, UTC))
    # A set is decided as one, and each of its backups is told of.
    return [
        Decision(replace(one.candidate, label=backup.label, source=backup.source), one.reasons)
        for one in decisions
        for backup in members[id(one.candidate)]
    ]


def _together(backups: Sequence[Backup]) -> dict[str, set[str]]:
    """For each label those that are kept or go with it."""
    groups = [{one.label for one in point.members} for point in restore_points(backups)]
    return {label: group for group in groups for label in group}


def _part(backups: Sequence[Backup], labels: Iterable[str]) -> tuple[list[Backup], list[Backup]]:
    """Those that stay, and those with one of the labels."""
    gone = set(labels)
    return [one for one in backups if one.label not in gone], [one for one in backups if one.label in gone]


async def _locked(
    repository: Repository, labels: Sequence[str], together: Mapping[str, set[str]], now_ns: int
) -> dict[str, int | None]:
    """Those that the store keeps for now, with until when; a set goes when the last of its backups can."""
    found = await side_by_side(lambda label: retained_until(repository.store, layout.backup_key(label)), labels)
    until = {label: at for label, at in zip(labels, found, strict=True) if at and at > now_ns}
    return {
        label: max(until[one] for one in together[label] if one in until)
        for label in labels
        if not together[label].isdisjoint(until)
    }


def _compare_clocks(own: Lease) -> None:
    """By a clock that is wrong, every object looks old, and the policy's days are others."""
    if abs(own.ahead_ns) > _CLOCK_SKEW_NS:
        raise StoreFailedError(
            f"this machine's clock and the store's differ by {abs(own.ahead_ns) // 10**9} seconds",
            code="store.clock",
            means="nothing was expired: the age of objects and backups is not known",
            hint="set the clock, or run it on the machine that stores the repository",
        )


async def _sweep(
    repository: Repository,
    own: Lease,
    report: ExpireReport,
    gone: Sequence[Backup],
    stay: Sequence[Backup],
    needed: set[str],
    before_ns: int,
) -> str:
    """Delete manifests and segments that no remaining backup names; why nothing was deleted, empty when it was."""
    others = await own.others()
    if any(one.purpose not in ("read", "expire") for one in others):
        return "a backup is at work and may use them"
    # A backup whose lease we saw before may have been committed since, with objects that were there already.
    whole, damage = await repository.backups()
    if damage:
        return f"{damage[0].key} cannot be read"
    known = {one.label for one in stay}
    reading = {label for one in others for label in one.labels}
    # Whoever reads a backup that is gone began before it went: what it needs stays as well.
    more = [one for one in whole if one.label not in known]
    more += [one for one in gone if reading & {one.label, "*"}]
    try:
        needed |= await _needs(repository, more)
    except BadDataError as wrong:
        return wrong.what
    rubbish = await _rubbish(repository, needed, _manifests(gone), before_ns)
    kept: set[str] = set()
    for kinds in (("manifest", "files"), ("segment",)):
        some = [info for info in rubbish if layout.kind_of(info.key) in kinds]
        kept |= await delete_all(repository.store, [info.key for info in some], own.check)
        report.deleted_objects += sum(info.key not in kept for info in some)
        report.freed_bytes += sum(info.size for info in some if info.key not in kept)
        await repository.store.sync()
    return f"the store keeps {len(kept)} of them" if kept else ""


async def _rubbish(
    repository: Repository, needed: set[str], expired_manifests: set[str], before_ns: int
) -> list[ObjectInfo]:
    """Manifests of backups that go, and whatever nothing needs and is old enough. Names that are not the format's stay."""
    return [
        info
        async for info in repository.store.list(layout.SOURCES)
        if info.key not in needed
        and layout.kind_of(info.key)
        and (info.modified_ns < before_ns or info.key in expired_manifests)
    ]


def _manifests(backups: Iterable[Backup]) -> set[str]:
    return {ref.key for backup in backups for ref in backup.refs}


async def _needs_of_those_that_stay(repository: Repository, backups: Sequence[Backup]) -> set[str]:
    try:
        return await _needs(repository, backups)
    except BadDataError as wrong:
        raise _unknown_needs(wrong) from wrong


async def _needs(repository: Repository, backups: Sequence[Backup]) -> set[str]:
    """Every key that these backups need."""
    pairs = [(backup, entry) for backup in backups for entry in backup.streams if entry.manifest]
    needed = _manifests(backups)

    async def add(pair: tuple[Backup, StreamEntry]) -> None:
        backup, entry = pair
        needed.update(ref.key for ref in await repository.needs_of(backup, entry))

    await side_by_side(add, pairs)
    return needed
