"""Bring the backups of one repository into another: what is missing there, proven on the way, committed last."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from jetkeep.catalog import proven_segment
from jetkeep.errors import JetkeepError, LockedError
from jetkeep.model import Emit, Notice, StreamAdvanced, StreamBegan, StreamEnded
from jetkeep.repository import refusals
from jetkeep.repository.documents import Backup, Manifest, SegmentRef, StreamEntry
from jetkeep.repository.fanout import Member
from jetkeep.repository.leases import lease, lease_if_possible
from jetkeep.repository.repository import Repository
from jetkeep.repository.sets import candidate_of, restore_points
from jetkeep.retention import Policy, decide

#: Segments that are read, proven and stored at once.
SEGMENTS_AT_ONCE = 3


@dataclass(slots=True)
class CopyReport:
    """Labels that were copied, that were there already, and that could not be copied, with why; stored bytes of what was copied."""

    copied: list[str] = field(default_factory=list)
    present: list[str] = field(default_factory=list)
    failed: dict[str, JetkeepError] = field(default_factory=dict)
    bytes: int = 0
    seconds: float = 0.0


def missing_from(backups: Sequence[Backup], there: Sequence[Backup]) -> list[Backup]:
    """Those of `backups` that are not `there`: by the run that made them, else by label and beginning."""
    known = {one.identity for one in there}
    return [one for one in backups if one.identity not in known]


async def copy_backups(
    source: Repository,
    target: Repository,
    *,
    labels: Sequence[str] = (),
    emit: Emit,
    now_ns: Callable[[], int],
) -> CopyReport:
    """Copy the backups that `target` lacks, the oldest first; each is durable there before the next one begins.

    A backup that is damaged is not copied, and the next ones are. What an earlier copy that died has brought is used again.

    Args:
        source, target: from where to where; neither needs to be encrypted like the other.
        labels: only these backups of the source.
        emit: takes the progress of each stream.
        now_ns: the clock, ns since the epoch.

    Raises:
        UsageError: there is no such backup, or both are one repository.
        StoreError: one of them cannot be listed, or is locked.
    """
    began = time.monotonic()
    if source.id == target.id:
        raise refusals.same_repository(source.url, target.url)
    report = CopyReport()
    member = Member("", target.url, target)
    async with (
        lease_if_possible(source.store, "read", now_ns=now_ns, labels=list(labels) or ["*"]),
        lease(target.store, "backup", now_ns=now_ns, tell=lambda words: emit(Notice(words))) as held,
    ):
        member.held = held
        await held.wait_for_expire()
        here, damage = await source.backups()
        there, _ = await target.backups()
        wanted = _chosen(source, here, labels)
        if not labels:
            report.failed = {one.key: one.error for one in damage}
        missing = {one.label for one in missing_from(wanted, there)}
        report.present = [one.label for one in wanted if one.label not in missing]
        for backup in (one for one in wanted if one.label in missing):
            try:
                report.bytes += await _copy(source, member, backup, emit)
            except LockedError:
                raise
            except JetkeepError as failure:
                report.failed[backup.label] = failure
            else:
                report.copied.append(backup.label)
    report.seconds = time.monotonic() - began
    return report


def _chosen(source: Repository, backups: Sequence[Backup], labels: Sequence[str]) -> list[Backup]:
    if not labels:
        return list(backups)
    by_label = {one.label: one for one in backups}
    for label in labels:
        if label not in by_label:
            raise refusals.no_backup(label, source.url)
    return [one for one in backups if one.label in labels]


async def _copy(source: Repository, target: Member, backup: Backup, emit: Emit) -> int:
    """One backup; how many bytes its segments have in the target."""
    for entry in backup.streams:
        if entry.manifest is None:
            continue
        emit(StreamBegan(entry.name, "copy", entry.messages, entry.bytes))
        try:
            await _copy_stream(source, target, backup, entry, emit)
        except JetkeepError as failure:
            emit(StreamEnded(entry.name, "copy", failure.what))
            raise
        emit(StreamEnded(entry.name, "copy"))
    if backup.files and backup.files.archive:
        if source.sealed and not target.open.sealed:
            raise refusals.files_unsealed(target.open.url)
        archive = await source.read_files(backup)
        target.archive = await target.open.put_files(backup.source, backup.label, archive)
    committed = await target.commit(backup, relabel=False)
    return sum(entry.stored_bytes for entry in committed.streams)


async def _copy_stream(source: Repository, target: Member, backup: Backup, entry: StreamEntry, emit: Emit) -> None:
    manifest = await source.read_manifest(backup, entry)
    entry.fingerprint = manifest.fingerprint  # which a sealed repository does not tell
    limit = asyncio.Semaphore(SEGMENTS_AT_ONCE)
    done = [0, 0]

    async def one(ref: SegmentRef) -> None:
        async with limit:
            segment = await asyncio.to_thread(proven_segment, ref, await source.read_segment(ref))
            own = await target.put_segment(manifest.source, manifest.stream, manifest.timeline, segment)
        target.same_segments(ref, own)
        done[0] += ref.count
        done[1] += ref.raw_bytes
        emit(StreamAdvanced(manifest.stream, "copy", *done))

    await _all(one, manifest)
    assert entry.manifest is not None
    target.same_manifest(entry.manifest, await target.put_manifest(manifest))


async def _all(work: Callable[[SegmentRef], Coroutine[Any, Any, None]], manifest: Manifest) -> None:
    tasks = [asyncio.create_task(work(ref)) for ref in manifest.segments]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@dataclass(frozen=True, slots=True)
class Lag:
    """How far a repository is behind another: backups that are newer than the newest it shares, which are `behind`.

    `newest` is that newest shared one, None when there is none. `ahead` are backups that only it has and that are newer
    than any of their source in the other: of a time when the other could not be written to.
    """

    newest: Backup | None
    behind: tuple[Backup, ...]
    ahead: tuple[Backup, ...] = ()


async def lag(backups: Sequence[Backup], target: Repository) -> Lag:
    """How far `target` is behind a repository with these backups (in the order in which they began).

    Raises:
        StoreError: it cannot be listed.
    """
    there, _ = await target.backups()
    known, own = {one.identity for one in there}, {one.identity for one in backups}
    began = {one.source: one.started for one in backups}
    ahead = tuple(
        one
        for one in there
        if one.identity not in own and (not backups or (one.source in began and one.started > began[one.source]))
    )
    behind: list[Backup] = []
    for backup in reversed(backups):
        if backup.identity in known:
            return Lag(backup, tuple(reversed(behind)), ahead)
        behind.append(backup)
    return Lag(None, tuple(reversed(behind)), ahead)


async def catch_up(
    source: Repository, target: Repository, policy: Policy | None, *, emit: Emit, now_ns: Callable[[], int]
) -> CopyReport:
    """Copy what `target` lacks and its policy would keep: what an expire let go there does not come back.

    Raises:
        StoreError: one of them cannot be listed, or is locked.
    """
    here, _ = await source.backups()
    there, _ = await target.backups()
    labels = {one.label for one in missing_from(here, there)} - {one.label for one in there}
    if labels and policy and not policy.empty:
        points = restore_points((*there, *(one for one in here if one.label in labels)))
        members = [(candidate_of(point, {}), point.members) for point in points]
        decided = decide([one for one, _ in members], policy, datetime.fromtimestamp(now_ns() / 1e9, UTC))
        kept = {id(one.candidate) for one in decided if one.keep}
        labels &= {backup.label for one, backups in members if id(one) in kept for backup in backups}
    if not labels:
        return CopyReport()
    return await copy_backups(source, target, labels=sorted(labels), emit=emit, now_ns=now_ns)
