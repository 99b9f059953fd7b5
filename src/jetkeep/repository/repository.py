"""A repository: what may be written in which order, and what must be checked before a byte is believed."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from jetkeep import __version__
from jetkeep.errors import (
    AlreadyThereError,
    BadDataError,
    JetkeepError,
    NoObjectError,
    NoRepositoryError,
    StoreError,
    UsageError,
)
from jetkeep.repository import encoding, layout, refusals
from jetkeep.repository.documents import (
    Backup,
    Manifest,
    ManifestRef,
    RepositoryDocument,
    SegmentRef,
    StreamEntry,
    difference,
)
from jetkeep.repository.index import LOOSE, BackupIndex
from jetkeep.repository.leases import Lease, LeaseClock, rfc3339
from jetkeep.repository.names import check_label, check_source
from jetkeep.repository.store import ObjectInfo, Store, create_surely, side_by_side

if TYPE_CHECKING:
    from jetkeep.codecs.segment import SegmentBytes

_COPIES = 99


@dataclass(frozen=True, slots=True)
class Damage:
    """An object that could not be read as what it must be."""

    key: str
    error: JetkeepError


class Repository:
    """One repository in a store. Reading checks everything; writing keeps the order of docs/format.md."""

    def __init__(self, store: Store, document: RepositoryDocument) -> None:
        self.store = store
        self.id = document.id
        self.document = document
        self._index: BackupIndex | None = None
        self._listed: list[str] = []

    @property
    def url(self) -> str:
        """Where it is, for people."""
        return self.store.url

    @classmethod
    async def open(cls, store: Store) -> Repository:
        """Open what is there.

        Raises:
            NoRepositoryError: nothing that is a repository is there.
            BadDataError: `jetkeep.json` is damaged or needs a newer version.
        """
        try:
            data = await store.read(layout.REPOSITORY, encoding.MAX_DOCUMENT)
        except NoObjectError:
            async for info in store.list(layout.BACKUPS):
                if layout.label_of(info.key):
                    raise refusals.headless(store.url) from None
            raise refusals.no_repository(store.url) from None
        return cls(store, encoding.unseal(data, layout.REPOSITORY, RepositoryDocument))

    @classmethod
    async def create(cls, store: Store, *, now_ns: LeaseClock) -> Repository:
        """Create a repository where the store is empty; durable on return.

        Raises:
            UsageError: something else is there.
        """
        async for info in store.list(""):
            raise refusals.not_empty(store.url, info.key)
        document = RepositoryDocument(
            id=secrets.token_hex(16), created_at=rfc3339(now_ns()), created_by=f"jetkeep {__version__}"
        )
        with contextlib.suppress(AlreadyThereError):  # somebody else's first backup was quicker
            await create_surely(store, layout.REPOSITORY, encoding.seal(document), durable=True)
            if not store.remote:
                return cls(store, document)
        # Some object stores tell several writers that each was first: what is there counts.
        return await cls.open(store)

    @classmethod
    async def open_or_create(cls, store: Store, *, now_ns: LeaseClock) -> Repository:
        """Open the repository, or create it where nothing is."""
        try:
            return await cls.open(store)
        except NoRepositoryError:
            pass
        try:
            return await cls.create(store, now_ns=now_ns)
        except UsageError as refusal:
            try:
                return await cls.open(store)  # somebody created it since we looked
            except NoRepositoryError:
                raise refusal from None

    # Writing, in this order: segments, manifests, commit.

    async def put_segment(self, source: str, stream: str, timeline: str, segment: SegmentBytes) -> SegmentRef:
        """Store a segment; durable with the commit. Equal bytes that are there already are read, compared and used."""
        digest = await _digest(segment.data)
        prefix = layout.timeline_prefix(check_source(source), stream, timeline)
        first, last = segment.first_seq, segment.last_seq
        key = await self._put(segment.data, digest, lambda copy: layout.segment_key(prefix, first, last, digest, copy))
        return SegmentRef(
            key=key,
            sha256=digest,
            bytes=len(segment.data),
            first_seq=first,
            last_seq=last,
            count=segment.count,
            first_ts_ns=segment.first_ts,
            last_ts_ns=segment.last_ts,
            raw_bytes=segment.raw_bytes,
            fingerprint=segment.fingerprint,
        )

    async def put_manifest(self, manifest: Manifest) -> ManifestRef:
        """Store a manifest; durable with the commit.

        Raises:
            BadDataError: a reader would refuse it.
        """
        data = await asyncio.to_thread(_manifest_bytes, manifest)
        digest = await _digest(data)
        prefix = layout.timeline_prefix(check_source(manifest.source), manifest.stream, manifest.timeline)
        label = check_label(manifest.label)
        key = await self._put(data, digest, lambda copy: layout.manifest_key(prefix, label, digest, copy))
        return ManifestRef(key=key, sha256=digest, bytes=len(data))

    async def put_files(self, source: str, label: str, archive: bytes) -> ManifestRef:
        """Store the archive of a backup's files; durable with the commit."""
        digest = await _digest(archive)
        check_source(source), check_label(label)
        key = await self._put(archive, digest, lambda copy: layout.files_key(source, label, digest, copy))
        return ManifestRef(key=key, sha256=digest, bytes=len(archive))

    async def _put(self, data: bytes | memoryview, digest: str, key_of: Callable[[int], str]) -> str:
        for copy in range(1, _COPIES + 1):
            key = key_of(copy)
            try:
                await create_surely(self.store, key, data, durable=False)
            except AlreadyThereError:
                try:
                    await self._read_proven(key, digest, len(data))
                except (BadDataError, StoreError):
                    continue  # damaged bytes hold the name: write beside them
            return key
        raise encoding.damaged(key_of(1), f"and so are {_COPIES - 1} more of its name")

    async def commit(self, backup: Backup, held: Lease, *, relabel: bool = False) -> Backup:
        """Make the backup exist: everything it names is durable first, then its own object. Returns what was committed.

        Args:
            backup: its segments and manifests were put by this object.
            held: the lease under which they were put.
            relabel: when the label was taken meanwhile, use the next free one of its kind.

        Raises:
            UsageError: the label is taken.
            LockedError: the lease was not renewed in time: what was put may be gone.
        """
        while True:
            data = encoding.seal(backup)
            encoding.unseal(data, layout.backup_key(backup.label), Backup)  # what cannot be read is not written
            await self.store.sync()
            await held.confirm()
            key = layout.backup_key(check_label(backup.label))
            try:
                await create_surely(self.store, key, data, durable=True)
                sure = not self.store.remote
            except AlreadyThereError:
                sure = False  # ours, if an answer was lost
            # Some object stores tell several writers that each was first.
            if not sure and await self.store.read(key, encoding.MAX_DOCUMENT) != data:
                if not relabel:
                    raise refusals.label_taken(backup.label)
                backup = await self._relabelled(backup)
                continue
            if self.store.remote and self._index:
                await self._index.write(self._listed)
            return backup

    async def _relabelled(self, backup: Backup) -> Backup:
        """The backup under the next free label, with manifests that say so."""
        label = await self.free_label(None, backup.started)
        streams = []
        for entry in backup.streams:
            if entry.manifest is None:
                streams.append(entry)
                continue
            manifest = await self.read_manifest(backup, entry)
            manifest.label = label
            streams.append(msgspec.structs.replace(entry, manifest=await self.put_manifest(manifest)))
        return msgspec.structs.replace(backup, label=label, streams=streams)

    async def free_label(self, wanted: str | None, started: datetime) -> str:
        """The wanted label, or one from the time; the commit still decides who gets it.

        Raises:
            UsageError: the wanted label is taken or cannot be one.
        """
        taken = {layout.label_of(info.key) async for info in self.store.list(layout.BACKUPS)}
        if wanted is not None:
            if check_label(wanted) in taken:
                raise refusals.label_taken(wanted)
            return wanted
        base = started.strftime("%Y%m%d-%H%M%S")
        label, copy = base, 1
        while label in taken:
            copy += 1
            label = f"{base}-{copy}"
        return label

    # Reading.

    async def backups(self) -> tuple[list[Backup], list[Damage]]:
        """All backups in the order in which they began, and what could not be read."""
        infos = [info async for info in self.store.list(layout.BACKUPS) if layout.label_of(info.key)]
        index = BackupIndex(self.store)
        if self.store.remote and len(infos) > LOOSE:
            await index.load()

        async def one(info: ObjectInfo) -> Backup | Damage | None:
            try:
                if text := index.text(info):
                    with contextlib.suppress(BadDataError):
                        return self._backup_of(text, info.key)
                data = await self.store.read(info.key, encoding.MAX_DOCUMENT)
                backup = self._backup_of(data, info.key)
            except NoObjectError:
                return None  # expired between listing and reading
            except (BadDataError, StoreError) as wrong:
                return Damage(info.key, wrong)
            index.note(info, data)
            return backup

        found = await side_by_side(one, infos)
        self._index, self._listed = index, [info.key for info in infos]
        whole = [item for item in found if isinstance(item, Backup)]
        return (
            sorted(whole, key=lambda backup: (backup.started, backup.label)),
            [item for item in found if isinstance(item, Damage)],
        )

    async def read_backup(self, label: str) -> Backup:
        """One backup.

        Raises:
            UsageError: there is none of that label.
            BadDataError: it is damaged.
        """
        try:
            return await self._backup_at(layout.backup_key(check_label(label)))
        except NoObjectError:
            raise refusals.no_backup(label, self.url) from None

    async def _backup_at(self, key: str) -> Backup:
        return self._backup_of(await self.store.read(key, encoding.MAX_DOCUMENT), key)

    def _backup_of(self, data: bytes, key: str) -> Backup:
        backup = encoding.unseal(data, key, Backup)
        if layout.backup_key(backup.label) != key:
            raise encoding.damaged(key, f"it says that it is backup {backup.label}", "mismatch")
        if backup.repository != self.id:
            raise encoding.damaged(key, f"it belongs to another repository ({backup.repository})", "mismatch")
        return backup

    async def newest_entries(self, source: str) -> dict[str, StreamEntry]:
        """Each stream's entry in the newest backup of `source` that has it whole."""
        whole, _ = await self.backups()
        return {
            entry.name: entry
            for backup in whole
            if backup.source == source
            for entry in backup.streams
            if entry.status == "complete"
        }

    async def read_manifest(self, backup: Backup, entry: StreamEntry) -> Manifest:
        """The manifest of a complete stream in a backup, proven and compared with what the backup says of it.

        Raises:
            BadDataError: it is damaged, absent, or says something else than the backup.
        """
        ref = entry.manifest
        assert ref is not None, "a failed stream has no manifest"
        data = await self._read_proven(ref.key, ref.sha256, ref.bytes)
        manifest = await asyncio.to_thread(encoding.decode_manifest, data, ref.key)
        if what := difference(backup, entry, manifest):
            raise encoding.damaged(ref.key, f"its {what} is not what backup {backup.label} says", "mismatch")
        prefix = layout.timeline_prefix(manifest.source, manifest.stream, manifest.timeline)
        for key in (ref.key, *(one.key for one in manifest.segments)):
            if not key.startswith(prefix):
                raise encoding.damaged(ref.key, f"{key} is not of timeline {manifest.timeline}", "timeline")
        return manifest

    async def read_segment(self, ref: SegmentRef) -> bytes:
        """A segment's bytes, proven.

        Raises:
            BadDataError: it is damaged or absent.
        """
        return await self._read_proven(ref.key, ref.sha256, ref.bytes)

    async def read_files(self, backup: Backup) -> bytes:
        """The archive of the files in a backup that has them, proven.

        Raises:
            BadDataError: it is damaged or absent.
        """
        ref = backup.files.archive if backup.files else None
        assert ref is not None, "a backup without files has no archive"
        if layout.kind_of(ref.key) != "files" or not ref.key.startswith(f"{layout.SOURCES}{backup.source}/"):
            raise encoding.damaged(ref.key, f"it is no archive of {backup.source}'s files", "mismatch")
        return await self._read_proven(ref.key, ref.sha256, ref.bytes)

    async def _read_proven(self, key: str, digest: str, size: int) -> bytes:
        try:
            data = await self.store.read(key, size)
        except NoObjectError:
            raise refusals.missing(key) from None
        if len(data) < size:
            raise encoding.damaged(key, f"it is cut: {len(data)} of {size} bytes are there", "truncated")
        if await _digest(data) != digest:
            raise encoding.damaged(key, "its bytes do not have the digest that is stated for them")
        return data


async def _digest(data: bytes | memoryview) -> str:
    if len(data) < 64 * 1024:  # a thread costs more
        return hashlib.sha256(data).hexdigest()
    return await asyncio.to_thread(lambda: hashlib.sha256(data).hexdigest())


def _manifest_bytes(manifest: Manifest) -> bytes:
    data = encoding.encode_manifest(manifest)
    encoding.decode_manifest(data, f"the manifest of {manifest.stream}")  # what cannot be read is not written
    return data
