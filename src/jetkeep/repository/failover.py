"""Read the first repository, and object by object another one where it fails.

Nothing is asked of the others before it is needed. What they give was proven as in any reading: by the digests that their
own backup of the same run names.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from jetkeep.errors import BadDataError, JetkeepError, StoreError, UsageError
from jetkeep.repository import layout, refusals
from jetkeep.repository.documents import Backup, Manifest, SegmentRef, StreamEntry
from jetkeep.repository.leases import Lease, LeaseClock, Tell, lease_if_possible
from jetkeep.repository.repository import Damage, Repository
from jetkeep.repository.twins import Rows, rows_of, same_backup, same_stream

T = TypeVar("T")

#: A repository whose store failed so often is asked last from then on: each attempt may cost a time-out.
PATIENCE = 3


@dataclass(eq=False, slots=True)
class Source:
    """A repository that can be read.

    Attributes:
        name: as the configuration calls it.
        open: opens it.
        repository: once it was opened; else `failure` says why it cannot be, or its backups cannot be listed.
        backups, damage: what it has, once that was listed.
        stumbles: how often its store failed.
        protected: labels that a lease of ours names there.
    """

    name: str
    open: Callable[[], Awaitable[Repository]]
    repository: Repository | None = None
    failure: JetkeepError | None = None
    backups: list[Backup] | None = None
    damage: list[Damage] = field(default_factory=list)
    stumbles: int = 0
    protected: set[str] = field(default_factory=set)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class Failover(Repository):
    """Several repositories as one to read from. Writing, listing objects and leases of others are the first one's."""

    def __init__(self, first: Repository, sources: Sequence[Source], *, tell: Tell, now_ns: LeaseClock) -> None:
        super().__init__(first.store, first.document)
        self.vault = first.vault
        self._sources, self._say, self._now_ns = list(sources), tell, now_ns
        self._told: set[str] = set()
        self._stack: AsyncExitStack | None = None
        #: Which backup and stream a segment was named by.
        self._named: dict[tuple[str, str], tuple[Backup, StreamEntry]] = {}
        self._rows: dict[tuple[str, str, str], dict[Rows, SegmentRef]] = {}

    @classmethod
    async def begin(cls, sources: Sequence[Source], *, tell: Tell, now_ns: LeaseClock) -> Failover:
        """Open the first that can be opened, and say which cannot.

        Raises:
            JetkeepError: none can; what the first one's failure was.
        """
        for at, source in enumerate(sources):
            try:
                first = source.repository = await source.open()
            except UsageError:
                raise
            except JetkeepError as failure:
                source.failure = failure
                continue
            for other in sources[:at]:
                assert other.failure
                tell(f"{other.name} cannot be read, {source.name} is: {other.failure.what}")
            return cls(first, sources[at:], tell=tell, now_ns=now_ns)
        assert sources[0].failure
        raise sources[0].failure

    async def backups(self) -> tuple[list[Backup], list[Damage]]:
        """The backups of the first repository that has any, those that cannot be read there from another.

        Others are not added to them: a repository that many write to may hold backups that are newer and somebody else's.
        """
        first, *others = self._sources
        whole, lost = list(await self._list(first)), {one.key: one for one in first.damage}
        for other in others if lost or not whole else ():
            nothing = not (whole or lost)
            for backup in await self._list(other):
                key = layout.backup_key(backup.label)
                if nothing or key in lost:
                    lost.pop(key, None)
                    self._tell(f"{key} is read from {other.name}: {first.name} does not have it sound")
                    whole.append(backup)
        if first.failure and not whole:
            raise first.failure
        return sorted(whole, key=lambda one: (one.started, one.label)), list(lost.values())

    async def read_backup(self, label: str) -> Backup:
        """One backup, of the first repository that has it sound; see Repository.read_backup."""
        failure: JetkeepError | None = None
        for source in self._sources:
            try:
                async with source.lock:
                    repository = await self._opened(source)
                found = await repository.read_backup(label)
            except (BadDataError, StoreError, UsageError) as wrong:
                failure = failure or wrong
                continue
            if failure:
                self._tell(f"{failure.what}: read from {source.name}")
            return found
        assert failure
        raise failure

    async def read_manifest(self, backup: Backup, entry: StreamEntry) -> Manifest:
        """A manifest of the backup, or of the same backup in another repository; see Repository.read_manifest."""

        async def read(repository: Repository, own: Backup) -> tuple[Manifest, Backup, StreamEntry]:
            found = entry if own is backup else same_stream(entry, own)
            if found is None:
                raise refusals.missing(f"{entry.name} as it is in backup {backup.label}")
            return await repository.read_manifest(own, found), own, found

        manifest, own, found = await self._sound(backup, read)
        for ref in manifest.segments:
            self._named[ref.key, ref.sha256] = own, found
        return manifest

    async def read_segment(self, ref: SegmentRef) -> bytes:
        """A segment of a manifest that was read before; see Repository.read_segment."""
        backup, entry = self._named[ref.key, ref.sha256]

        async def read(repository: Repository, own: Backup) -> bytes:
            if own is backup:
                return await repository.read_segment(ref)
            if not (repository.sealed or backup.sealed):
                with contextlib.suppress(BadDataError):
                    return await repository.read_segment(ref)  # the same bytes mostly have the same name
            rows = await self._rows_there(repository, own, entry)
            if (same := rows.get(rows_of(ref))) is None:
                raise refusals.missing(ref.key)
            return await repository.read_segment(same)

        return await self._sound(backup, read)

    async def read_files(self, backup: Backup) -> bytes:
        """The archive of a backup's files; see Repository.read_files."""

        async def read(repository: Repository, own: Backup) -> bytes:
            if not (own.files and own.files.archive):
                raise refusals.missing(f"the archive of the files in backup {own.label}")
            return await repository.read_files(own)

        return await self._sound(backup, read)

    @asynccontextmanager
    async def protecting(self, backups: Sequence[Backup], *, now_ns: LeaseClock) -> AsyncIterator[Lease | None]:
        """Keep `expire` from backups in the repositories that they are of, and from their likes as soon as these are read."""
        async with AsyncExitStack() as stack:
            self._stack = stack
            first, *others = self._sources
            first.protected = {one.label for one in backups if one.repository == self.id}
            own = lease_if_possible(self.store, "read", now_ns=now_ns, labels=sorted(first.protected))
            held = await stack.enter_async_context(own)
            for source in others:
                if source.repository is not None:
                    for backup in backups:
                        if backup.repository == source.repository.id:
                            await self._protect(source, backup.label)
            try:
                yield held
            finally:
                self._stack = None

    async def _sound(self, backup: Backup, read: Callable[[Repository, Backup], Awaitable[T]]) -> T:
        """What is read from the backup's own repository; where that fails, from the first other one that has it sound."""
        failure: JetkeepError | None = None
        weak = [one.name for one in self._sources if one.stumbles >= PATIENCE]
        for source in sorted(self._sources, key=lambda one: (one.name in weak, not _is_home(one, backup))):
            try:
                own = await self._same(source, backup)
                if own is None or source.repository is None:
                    continue
                found = await read(source.repository, own)
            except (BadDataError, StoreError) as wrong:
                failure = failure or wrong
                source.stumbles += isinstance(wrong, StoreError)
                continue
            if failure:
                self._tell(f"{failure.what}: read from {source.name}")
            elif not _is_home(source, backup):
                self._tell(f"{', '.join(weak)} failed again and again: reading from {source.name}")
            return found
        raise failure or refusals.no_backup(backup.label, self.url)

    async def _same(self, source: Source, backup: Backup) -> Backup | None:
        """The backup, or the one of its run in that repository, protected from expiring there."""
        if _is_home(source, backup):
            return backup
        twin = same_backup(backup, await self._list(source))
        if twin and self._stack and twin.label not in source.protected:
            async with source.lock:
                await self._protect(source, twin.label)
            assert source.repository
            try:
                return await source.repository.read_backup(twin.label)
            except UsageError:
                return None  # an expire was quicker than the lease
        return twin

    async def _protect(self, source: Source, label: str) -> None:
        if label in source.protected:
            return
        assert source.repository
        assert self._stack
        lease = lease_if_possible(source.repository.store, "read", now_ns=self._now_ns, labels=[label])
        await self._stack.enter_async_context(lease)
        source.protected.add(label)

    async def _opened(self, source: Source) -> Repository:
        if source.failure:
            raise source.failure
        if source.repository is None:
            try:
                source.repository = await source.open()
            except JetkeepError as failure:
                source.failure = failure
                self._tell(f"{source.name} cannot be read: {failure.what}")
                raise
        return source.repository

    async def _list(self, source: Source) -> list[Backup]:
        """The backups of a repository; none where they cannot be listed."""
        async with source.lock:
            if source.backups is None:
                try:
                    repository = await self._opened(source)
                    source.backups, source.damage = await repository.backups()
                except JetkeepError as failure:
                    if not source.failure:
                        self._tell(f"the backups of {source.name} cannot be listed: {failure.what}")
                    source.failure, source.backups = failure, []
            return source.backups

    async def _rows_there(self, repository: Repository, own: Backup, entry: StreamEntry) -> dict[Rows, SegmentRef]:
        at = (repository.id, own.label, entry.name)
        if at not in self._rows:
            found = same_stream(entry, own)
            segments = (await repository.read_manifest(own, found)).segments if found else []
            self._rows[at] = {rows_of(ref): ref for ref in segments}
        return self._rows[at]

    def _tell(self, words: str) -> None:
        if words not in self._told:
            self._told.add(words)
            self._say(words)


def _is_home(source: Source, backup: Backup) -> bool:
    return source.repository is not None and source.repository.id == backup.repository
