"""Bring damaged and lost objects back from other repositories: only bytes that have the digest which is stated for them.

An object that another repository stores in another way (encrypted, under another name) is made again from what it holds. The
digest says whether that is what was there, so nothing that differs by a bit is ever stored.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass

import msgspec

from jetkeep.errors import AccessDeniedError, AlreadyThereError, BadDataError, StoreError
from jetkeep.model import Emit, Notice
from jetkeep.repository import encoding, layout
from jetkeep.repository.documents import Backup, Manifest, ManifestRef, SegmentRef, StreamEntry
from jetkeep.repository.leases import lease, lease_if_possible
from jetkeep.repository.locking import LockingStore
from jetkeep.repository.repository import Repository, digest_of
from jetkeep.repository.store import Store, create_surely
from jetkeep.repository.twins import Rows, rows_of, same_backup, same_stream

Found = tuple[Repository, bytes | memoryview]
#: An envelope up to the end of its digest.
_STATED = len('{"sha256":"') + 64
_NAME = re.compile(r"(?P<what>[^/]+)-(?P<digest>[0-9a-f]{16})(?:-\d+)?\.[a-z.]+\Z")


@dataclass(frozen=True, slots=True)
class Repair:
    """An object, where it was found (None: nowhere; then `why`), and whether it was brought back."""

    key: str
    found_in: str | None
    done: bool = False
    why: str = ""


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What is stated for an object, and of what it is: a manifest, the files (no entry), or a segment (`segment`)."""

    ref: ManifestRef
    backup: Backup
    entry: StreamEntry | None = None
    segment: SegmentRef | None = None


async def repair(
    repository: Repository,
    others: Sequence[Repository],
    damaged: Mapping[str, Sequence[str]],
    *,
    write: bool,
    emit: Emit,
    now_ns: Callable[[], int],
) -> list[Repair]:
    """Find each damaged object in the other repositories, and with `write` put it back, durably.

    A death at any moment leaves each object as it was or whole; where the store locks objects, it may be absent until the
    next run brings it back.

    Args:
        repository: where the damage is.
        others: where to look, in order.
        damaged: keys, with the labels of the backups that they touch.
        write: put back what was found.
        emit: gets a notice for each object.
        now_ns: the clock, ns since the epoch.

    Raises:
        AccessDeniedError: a repository is sealed and no identity was given, or it may not be written to.
        StoreError: a repository cannot be listed, or is locked.
    """
    others = [one for one in others if one.id != repository.id]
    for one in (repository, *others):
        if not one.readable:
            raise AccessDeniedError(
                f"{one.url} is encrypted, and nothing in it can be compared without an identity",
                code="key.locked",
                means="nothing was repaired",
                hint="give --identity FILE, or set JETKEEP_IDENTITY",
            )
    async with AsyncExitStack() as stack:
        if write:
            held = await stack.enter_async_context(
                lease(repository.store, "backup", now_ns=now_ns, tell=lambda words: emit(Notice(words)))
            )
            await held.wait_for_expire()
        for one in others:
            await stack.enter_async_context(lease_if_possible(one.store, "read", now_ns=now_ns, labels=["*"]))
        mender = _Mender(repository, others)
        await mender.look()
        done = []
        # Manifests first: they say what their segments must be.
        for key in sorted(
            damaged, key=lambda one: (not one.startswith(layout.BACKUPS), layout.kind_of(one) == "segment")
        ):
            done.append(await _one(mender, key, damaged[key], write=write, emit=emit))
            if done[-1].done:
                await mender.look()
    return done


async def _one(mender: _Mender, key: str, labels: Sequence[str], *, write: bool, emit: Emit) -> Repair:
    try:
        found = await mender.find(key, labels)
    except (BadDataError, StoreError) as wrong:
        found = wrong.what
    if isinstance(found, str):
        return Repair(key, None, why=found)
    where, data = found
    if not write:
        return Repair(key, where.url)
    await _put_back(mender.repository.store, key, data)
    if await mender.repository.store.read(key, len(data)) != data:
        raise encoding.damaged(key, "the store gave back other bytes than were just written")
    emit(Notice(f"{key} was brought back from {where.url}"))
    return Repair(key, where.url, done=True)


async def _put_back(store: Store, key: str, data: bytes | memoryview) -> None:
    """Durable on return. Where uploads ask for a lock, the damaged object stays as an older version."""
    if isinstance(store, LockingStore) and store.lock:
        await store.delete(key)
        with suppress(AlreadyThereError):  # ours, if an answer was lost; it is read next
            await create_surely(store, key, data, durable=True)
    else:
        await store.replace(key, bytes(data))
    await store.sync()


class _Mender:
    """Looks for what an object must be."""

    def __init__(self, repository: Repository, others: Sequence[Repository]) -> None:
        self.repository, self._others = repository, others
        self._backups: list[Backup] = []
        self._there: list[tuple[Repository, list[Backup]]] = []

    async def look(self) -> None:
        """List what there is, again where something was brought back."""
        self._backups = (await self.repository.backups())[0]
        self._there = self._there or [(one, (await one.backups())[0]) for one in self._others]

    async def find(self, key: str, labels: Sequence[str]) -> Found | str:
        """The object's bytes, and which repository gave them; else why there are none."""
        if key.startswith(layout.BACKUPS):
            return await self._find_backup(key)
        wanted = await self._wanted(key, labels)
        if wanted is None:
            return "no sound document states what it was"
        if await self._read(self.repository, wanted.ref) is not None:
            return "it has the digest that is stated for it: it was written so"
        for repository, backups in self._there:
            with suppress(BadDataError, StoreError):  # damaged there as well: the next one may have it
                if (data := await self._from(repository, backups, wanted)) is not None:
                    return repository, data
        return "no other repository has it as it was"

    async def _wanted(self, key: str, labels: Sequence[str]) -> _Wanted | None:
        for backup in (one for one in self._backups if one.label in labels):
            if backup.files and backup.files.archive and backup.files.archive.key == key:
                return _Wanted(backup.files.archive, backup)
            for entry in (one for one in backup.streams if one.manifest):
                assert entry.manifest
                if entry.manifest.key == key:
                    return _Wanted(entry.manifest, backup, entry)
                if key.startswith(layout.timeline_prefix(backup.source, entry.name, entry.timeline)):
                    for one in await self._segments(backup, entry):
                        if one.key == key:
                            return _Wanted(_stated(one), backup, entry, one)
        return None

    async def _segments(self, backup: Backup, entry: StreamEntry) -> list[SegmentRef]:
        try:
            return (await self.repository.read_manifest(backup, entry)).segments
        except (BadDataError, StoreError):
            return []

    async def _read(self, repository: Repository, ref: ManifestRef) -> bytes | None:
        try:
            return await repository.prove(ref)
        except (BadDataError, StoreError):
            return None

    async def _from(
        self, repository: Repository, backups: Sequence[Backup], wanted: _Wanted
    ) -> bytes | memoryview | None:
        if not (repository.sealed or self.repository.sealed) and (data := await self._read(repository, wanted.ref)):
            return data  # the same bytes mostly have the same name
        twin = same_backup(wanted.backup, backups)
        found = await self._plain(repository, twin, wanted) if twin else None
        if found is None:
            return None
        plain, needs = found
        if (vault := self.repository.vault) is None:
            return plain if await _is(plain, wanted.ref) else None
        for run in await self._runs(wanted):
            with suppress(BadDataError, AccessDeniedError):  # what is left of the object may state a key that is none
                sealed = await vault.seal_again(plain, wanted.ref.key, run, needs)
                if await _is(sealed, wanted.ref):
                    return sealed
        return None

    async def _plain(
        self, repository: Repository, twin: Backup, wanted: _Wanted
    ) -> tuple[bytes, list[ManifestRef]] | None:
        """The object as it is without encryption, and what it needs, from the same backup in another repository."""
        if wanted.entry is None:
            return (await repository.read_files(twin), []) if twin.files and twin.files.archive else None
        if (there := same_stream(wanted.entry, twin)) is None:
            return None
        manifest = await repository.read_manifest(twin, there)
        if wanted.segment:
            rows = rows_of(wanted.segment)
            same = next((one for one in manifest.segments if rows_of(one) == rows), None)
            return (await repository.read_segment(same), []) if same else None
        own = await self._own_segments(wanted, manifest)
        if own is None:
            return None
        manifest = msgspec.structs.replace(manifest, label=wanted.backup.label, segments=own)
        return encoding.encode_manifest(manifest), [_stated(one) for one in own]

    async def _runs(self, wanted: _Wanted) -> list[str]:
        """The wrapped keys of the runs that may have sealed the object, the likeliest first."""
        from jetkeep.repository.sealing import read_header  # noqa: PLC0415 - no cryptography where nothing is sealed

        if not wanted.ref.key.endswith(layout.SEALED):
            return []
        runs = []
        with suppress(BadDataError, StoreError):  # lost, or damaged at its beginning
            data = await self.repository.store.read(wanted.ref.key, 2 * wanted.ref.bytes)
            runs.append(read_header(data, wanted.ref.key)[0].key)
        # What a backup names was sealed by its own run or by an earlier one.
        older = [one for one in self._backups if one.started <= wanted.backup.started]
        runs += [one.sealed.key for one in reversed(older) if one.sealed]
        return list(dict.fromkeys(runs))

    async def _own_segments(self, wanted: _Wanted, manifest: Manifest) -> list[SegmentRef] | None:
        """The segments of another repository's manifest as they lie in this one; None when one does not."""
        assert wanted.entry
        known: dict[Rows, SegmentRef] = {}
        # Where several hold the same rows, it names those of its own run, else what the one before it names.
        runs = [wanted.backup.sealed.key] if wanted.backup.sealed else []
        near = sorted(self._backups, key=lambda one: (one.started < wanted.backup.started, one.started))
        for backup in (one for one in near if one.source == wanted.backup.source):
            entry = backup.stream(wanted.entry.name)
            if entry and entry.timeline == manifest.timeline:
                known |= {rows_of(ref): ref for ref in await self._segments(backup, entry)}
        prefix = layout.timeline_prefix(manifest.source, manifest.stream, manifest.timeline)
        there = await self._keys(f"{prefix}segments/")
        own = []
        for ref in manifest.segments:
            span = f"{ref.first_seq:020d}-{ref.last_seq:020d}"
            found = await self._named(there, span, runs) if runs else None
            found = found or known.get(rows_of(ref)) or await self._named(there, span)
            if found is None:
                return None
            own.append(msgspec.structs.replace(ref, key=found.key, sha256=found.sha256, bytes=found.bytes))
        return own

    async def _named(self, keys: Sequence[str], what: str, runs: Sequence[str] = ()) -> ManifestRef | SegmentRef | None:
        """A reference to what lies at one of the keys and is called so, where it still has the digest in its name.

        With `runs` only what one of these runs sealed.
        """
        from jetkeep.repository.sealing import read_header  # noqa: PLC0415 - no cryptography where nothing is sealed

        for key in sorted(keys):
            name = _NAME.search(key)
            if name is None or name["what"] != what or not layout.kind_of(key):
                continue
            with suppress(BadDataError, StoreError):  # another copy may be sound
                data = await self.repository.store.read(key, encoding.MAX_MANIFEST)
                if (digest := await digest_of(data)).startswith(name["digest"]) and (
                    not runs or read_header(data, key)[0].key in runs
                ):
                    return ManifestRef(key=key, sha256=digest, bytes=len(data))
        return None

    async def _find_backup(self, key: str) -> Found | str:
        """A commit that has the digest which the damaged one still states, or its body where only that is left."""
        try:
            left = await self.repository.store.read(key, encoding.MAX_DOCUMENT)
        except (BadDataError, StoreError) as wrong:
            return wrong.what
        for repository, backups in self._there:
            twin = next((one for one in backups if layout.backup_key(one.label) == key), None)
            if twin is None or self.repository.sealed:
                continue
            data = encoding.seal(await self._own_backup(twin))
            if left[:_STATED] == data[:_STATED] or left[_STATED:] == data[_STATED:]:
                return repository, data
        return "it cannot be proven what it was: take it away, and `jetkeep copy` brings the backup again"

    async def _own_backup(self, twin: Backup) -> Backup:
        """Another repository's backup as it would be in this one, which is not sealed."""
        streams = []
        for entry in twin.streams:
            prefix = layout.timeline_prefix(twin.source, entry.name, entry.timeline)
            ref = await self._named(await self._keys(f"{prefix}manifests/"), twin.label) if entry.manifest else None
            if ref:
                manifest = encoding.decode_manifest(await self.repository.prove(ref), ref.key)
                stored = sum(one.bytes for one in manifest.segments)
                entry = msgspec.structs.replace(  # noqa: PLW2901 - the same entry, as it is here
                    entry, manifest=ref, stored_bytes=stored, fingerprint=manifest.fingerprint
                )
            streams.append(entry)
        own = msgspec.structs.replace(
            twin, repository=self.repository.id, streams=streams, features=[], sealed=msgspec.UNSET
        )
        if own.files and own.files.archive:
            archive = await self._named(await self._keys(f"{layout.SOURCES}{own.source}/=files/"), own.label)
            own.files = msgspec.structs.replace(own.files, archive=archive)
        return own

    async def _keys(self, prefix: str) -> list[str]:
        return [info.key async for info in self.repository.store.list(prefix)]


def _stated(ref: SegmentRef) -> ManifestRef:
    return ManifestRef(key=ref.key, sha256=ref.sha256, bytes=ref.bytes)


async def _is(data: bytes | memoryview, ref: ManifestRef) -> bool:
    return len(data) == ref.bytes and await digest_of(data) == ref.sha256
