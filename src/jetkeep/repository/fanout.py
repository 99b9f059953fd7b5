"""One backup into several repositories at once: each segment is encoded once and stored in all of them.

A repository that fails is left out for the rest of the run, and the others go on. Alone it is as if there were no fan-out.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, TypeVar

import msgspec

from jetkeep.errors import BadDataError, JetkeepError, StoreFailedError
from jetkeep.repository import layout, refusals
from jetkeep.repository.documents import Backup, Manifest, ManifestRef, SegmentRef, StreamEntry
from jetkeep.repository.leases import Lease, LeaseClock, Tell, lease
from jetkeep.repository.patience import Patience
from jetkeep.repository.repository import Repository

if TYPE_CHECKING:
    from jetkeep.codecs.segment import SegmentBytes

T = TypeVar("T")

#: How long the end of a run waits for a lease that is to be taken away; it ends by itself.
END_S = 10.0


@dataclass(eq=False, slots=True)
class Member:
    """A repository that takes part.

    Attributes:
        name: as the configuration calls it; empty when it was given by its URL.
        url: where it is, for people.
        repository: None when it could not even be opened; then `failure` says why.
        required: a run that does not reach it has failed.
        failure: why it takes no part any more.
        committed: the backup, once it is there.
        caught_up, behind: labels of earlier backups that were brought to it, and what could not be, with why.
        archive: where it has the files of the run.
        patience: how much longer the others wait for it.
    """

    name: str
    url: str
    repository: Repository | None
    required: bool = True
    failure: JetkeepError | None = None
    committed: Backup | None = None
    held: Lease | None = None
    caught_up: list[str] = field(default_factory=list)
    behind: dict[str, JetkeepError] = field(default_factory=dict)
    archive: ManifestRef | None = None
    patience: Patience = field(default_factory=Patience)
    _segments: dict[str, SegmentRef] = field(default_factory=dict)
    _manifests: dict[str, tuple[ManifestRef, int]] = field(default_factory=dict)

    @property
    def open(self) -> Repository:
        """The repository of a member that takes part."""
        assert self.repository is not None
        return self.repository

    async def put_segment(self, source: str, stream: str, timeline: str, segment: SegmentBytes) -> SegmentRef:
        """Store a segment here."""
        return await self.open.put_segment(source, stream, timeline, segment)

    def same_segments(self, canonical: SegmentRef, own: SegmentRef) -> None:
        """What the run calls `canonical` is `own` here."""
        self._segments[_identity(canonical)] = own

    async def put_manifest(self, manifest: Manifest) -> tuple[ManifestRef, int]:
        """Store the manifest with this repository's own segments; also their bytes."""
        segments = [self._segments[_identity(one)] for one in manifest.segments]
        ref = await self.open.put_manifest(msgspec.structs.replace(manifest, segments=segments))
        return ref, sum(one.bytes for one in segments)

    def same_manifest(self, canonical: ManifestRef, own: tuple[ManifestRef, int]) -> None:
        """What the run calls `canonical` is `own` here."""
        self._manifests[_identity(canonical)] = own

    async def commit(self, backup: Backup, *, relabel: bool) -> Backup:
        """Make the backup exist here."""
        assert self.held is not None
        streams = [self._entry(one) for one in backup.streams]
        own = msgspec.structs.replace(backup, repository=self.open.id, streams=streams)
        if backup.files and backup.files.archive:
            own.files = msgspec.structs.replace(backup.files, archive=self.archive)
        self.committed = await self.open.commit(own, self.held, relabel=relabel)
        return self.committed

    def _entry(self, entry: StreamEntry) -> StreamEntry:
        if entry.manifest is None:
            return entry
        ref, stored = self._manifests[_identity(entry.manifest)]
        return msgspec.structs.replace(entry, manifest=ref, stored_bytes=stored)


class FanOut:
    """Where a backup goes. Every method raises only when no repository that is left did it, with the first one's error."""

    def __init__(self, members: Sequence[Member]) -> None:
        self.members = list(members)

    @classmethod
    def alone(cls, repository: Repository) -> FanOut:
        """A single repository."""
        return cls([Member("", repository.url, repository)])

    @classmethod
    async def of(cls, members: Sequence[Member], opener: Callable[[Member], Awaitable[Repository]]) -> FanOut:
        """Several repositories, all opened at once. One that cannot be opened takes no part and says why, as does one that is another's copy.

        Raises:
            JetkeepError: none could be opened: the first one's error.
        """
        into = cls(members)
        opened = await into._each(opener)
        seen: dict[str, Member] = {}
        for member, repository in opened.items():
            member.repository = repository
            twin = seen.setdefault(repository.id, member)
            if twin is not member:
                member.failure = refusals.same_repository(twin.url, member.url)
        return into

    @property
    def opened(self) -> list[Repository]:
        """Those that could be opened, whatever became of the backup there."""
        return [one.repository for one in self.members if one.repository]

    @property
    def far(self) -> bool:
        """Whether one of them answers each call over a network."""
        return any(one.open.store.remote for one in self._alive)

    @property
    def _alive(self) -> list[Member]:
        return [one for one in self.members if one.failure is None]

    @asynccontextmanager
    async def at_work(self, now_ns: LeaseClock, tell: Tell = lambda words: None) -> AsyncIterator[None]:
        """Hold a lease in each of them while the block runs, and begin when no expire is at work there.

        `tell` hears of clocks that differ, and of leases that cannot be taken away.
        """
        leases = {member: AsyncExitStack() for member in self._alive}

        async def begin(member: Member) -> None:
            own = lease(member.open.store, "backup", now_ns=now_ns, tell=tell)
            member.held = await leases[member].enter_async_context(own)
            await member.held.wait_for_expire()

        async def end(member: Member) -> None:
            # A store that does not answer any more has kept this run waiting for long enough.
            with suppress(TimeoutError):
                async with asyncio.timeout(END_S if len(leases) > 1 else None):
                    await leases[member].aclose()

        try:
            await self._each(begin)
            yield
        finally:
            await asyncio.gather(*(end(member) for member in leases))

    async def free_label(self, wanted: str | None, started: datetime) -> str:
        """The wanted label, or one from the time that is free in all of them; the commit still decides who gets it."""
        found = await self._each(lambda one: one.open.free_label(wanted, started))
        # Of `…`, `…-2`, `…-3` the longest and highest is free everywhere.
        return max(found.values(), key=lambda label: (len(label), label))

    async def newest_entries(self, source: str) -> dict[str, StreamEntry]:
        """Each stream's entry in the newest backup of `source` that has it whole, of the first repository that answers."""
        found = await self._each(lambda one: one.open.newest_entries(source))
        return next(iter(found.values()))

    async def put_segment(self, source: str, stream: str, timeline: str, segment: SegmentBytes) -> SegmentRef:
        """Store a segment in all of them; durable with the commit."""
        found = await self._each(
            lambda one: one.put_segment(source, stream, timeline, segment), raw_bytes=segment.raw_bytes
        )
        canonical = next(iter(found.values()))
        for member, own in found.items():
            member.same_segments(canonical, own)
        return canonical

    async def read_segment(self, ref: SegmentRef) -> bytes:
        """A segment that was put in this run, from the first repository that has it."""
        for member in self._alive:
            own = member._segments.get(_identity(ref))
            if own is not None:
                return await member.open.read_segment(own)
        raise BadDataError(f"{ref.key} is in none of the repositories that are left", code="data.missing")

    async def put_manifest(self, manifest: Manifest) -> ManifestRef:
        """Store a manifest in all of them; durable with the commit."""
        found = await self._each(lambda one: one.put_manifest(manifest))
        canonical, _ = next(iter(found.values()))
        for member, own in found.items():
            member.same_manifest(canonical, own)
        return canonical

    async def backups(self) -> tuple[list[Backup], set[str]]:
        """The backups of the first repository that answers, and the labels that are taken in any of them."""
        found = await self._each(lambda one: one.open.backups())
        everywhere = {backup.label for whole, _ in found.values() for backup in whole}
        damaged = {layout.label_of(one.key) or "" for _, damage in found.values() for one in damage}
        return next(iter(found.values()))[0], everywhere | damaged

    async def put_files(self, source: str, label: str, archive: bytes) -> ManifestRef:
        """Store the archive of a backup's files in all of them; durable with the commit."""
        found = await self._each(lambda one: one.open.put_files(source, label, archive), raw_bytes=len(archive))
        for member, own in found.items():
            member.archive = own
        return next(iter(found.values()))

    async def commit(self, backup: Backup, *, relabel: bool) -> Backup:
        """Make the backup exist in all of them, in the first one first; what the first that took it has."""
        first, *rest = self._alive
        failures: dict[Member, JetkeepError] = {}
        for members in ([first], rest):
            failures |= (await self._some(members, lambda one: one.commit(backup, relabel=relabel)))[1]
        self._leave_out(failures)
        committed = [one.committed for one in self.members if one.committed]
        if not committed:
            raise next(one.failure for one in self.members if one.failure)
        return committed[0]

    @property
    def missed(self) -> list[Member]:
        """The repositories that do not have the backup, after its commit."""
        return [one for one in self.members if one.committed is None]

    def _leave_out(self, failures: dict[Member, JetkeepError]) -> None:
        for member, failure in failures.items():
            member.failure = failure

    async def _each(self, work: Callable[[Member], Awaitable[T]], *, raw_bytes: int = 0) -> dict[Member, T]:
        """The work's results; who failed where another did it is left out from now on.

        What nobody did fails alone, such as one stream: the rest of the run may still succeed in all of them.
        """
        found, failures = await self._some(self._alive, work, raw_bytes)
        if not found:
            # Those that were left out before are asked for their reason, too: there may be no others.
            raise next(why for one in self.members if (why := failures.get(one) or one.failure))
        self._leave_out(failures)
        return found

    async def _some(
        self, members: Sequence[Member], work: Callable[[Member], Awaitable[T]], raw_bytes: int = 0
    ) -> tuple[dict[Member, T], dict[Member, JetkeepError]]:
        """The work's results of the members that did it, and why the others did not."""
        # Somebody has to be waited for.
        main = next((one for one in self._alive if one.required), next(iter(self._alive), None))
        found: dict[Member, T] = {}
        failures: dict[Member, JetkeepError] = {}

        async def one(member: Member) -> None:
            try:
                async with nullcontext() if member is main else member.patience.call(raw_bytes):
                    found[member] = await work(member)
            except TimeoutError:
                failures[member] = _too_slow(member)
            except JetkeepError as failure:
                failures[member] = failure

        await asyncio.gather(*(one(member) for member in members))
        return {member: found[member] for member in members if member in found}, failures


def _identity(ref: SegmentRef | ManifestRef) -> str:
    return f"{ref.key} {ref.sha256}"


def _too_slow(member: Member) -> JetkeepError:
    return StoreFailedError(
        f"{member.url} did not keep up, and the others did not wait any longer",
        code="store.slow",
        means="this backup is not in that repository; the others have it",
        hint="look at the store and the line to it; the next backup brings what is missing, or `jetkeep copy`",
        retryable=True,
    )
