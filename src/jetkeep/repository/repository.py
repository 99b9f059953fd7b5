"""A repository: what may be written in which order, and what must be checked before a byte is believed."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import secrets
from collections.abc import Callable, Sequence
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
    Sealing,
    SegmentRef,
    StreamEntry,
    difference,
)
from jetkeep.repository.index import LOOSE, BackupIndex
from jetkeep.repository.leases import Lease, LeaseClock, lease_if_possible, rfc3339
from jetkeep.repository.locking import Sharing
from jetkeep.repository.names import check_label, check_source
from jetkeep.repository.store import ObjectInfo, Store, create_surely, side_by_side

if TYPE_CHECKING:
    from jetkeep.codecs.segment import SegmentBytes
    from jetkeep.repository.keys import Credentials
    from jetkeep.repository.vault import SealFor, Vault

#: Under object lock a segment is written again and again beside those that stay too short.
_COPIES = 9999


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
        self._sharing = Sharing(store)
        #: Seals and opens what lies in a sealed repository; None where nothing is sealed.
        self.vault: Vault | None = None
        self._index: BackupIndex | None = None
        self._listed: list[str] = []

    @property
    def url(self) -> str:
        """Where it is, for people."""
        return self.store.url

    @classmethod
    async def open(
        cls, store: Store, *, credentials: Credentials | None = None, pinned: str | None = None
    ) -> Repository:
        """Open what is there.

        Args:
            store: where it is.
            credentials: with which a sealed one is read; None where it is only written to, listed, or compared by digests.
            pinned: the only recipient that may be sealed for.

        Raises:
            NoRepositoryError: nothing that is a repository is there.
            BadDataError: `jetkeep.json` is damaged or needs a newer version.
            AccessDeniedError: the credentials do not open it.
        """
        try:
            data = await store.read(layout.REPOSITORY, encoding.MAX_DOCUMENT)
        except NoObjectError:
            async for info in store.list(layout.BACKUPS):
                if layout.label_of(info.key):
                    raise refusals.headless(store.url) from None
            raise refusals.no_repository(store.url) from None
        repository = cls(store, encoding.unseal(data, layout.REPOSITORY, RepositoryDocument))
        if pinned and not repository.sealed:
            raise refusals.not_sealed(store.url)
        if repository.sealed:
            from jetkeep.repository.vault import Vault  # noqa: PLC0415 - no cryptography where nothing is sealed

            repository.vault = Vault(store, repository.id, pinned)
            if credentials and not credentials.empty:
                await repository.vault.unlock(credentials)
        return repository

    @property
    def sealed(self) -> bool:
        """Whether only who has an identity reads messages and configurations."""
        return bool(self.document.sealing)

    @property
    def readable(self) -> bool:
        """Whether everything in it can be read with what was given."""
        return self.vault is None or self.vault.unlocked

    @classmethod
    async def create(cls, store: Store, *, now_ns: LeaseClock, seal_for: SealFor | None = None) -> Repository:
        """Create a repository where the store is empty, sealed for whom is named; durable on return.

        Raises:
            UsageError: something else is there.
        """
        async for info in store.list(""):
            if info.key.startswith((layout.LEASES, layout.RUNS)):
                continue  # what `check --store` could not take away, or a run whose volume was emptied under it wrote last
            if not (seal_for and layout.generation_of(info.key) == 1):  # of an init that was killed
                raise refusals.not_empty(store.url, info.key)
        document = RepositoryDocument(
            id=secrets.token_hex(16), created_at=rfc3339(now_ns()), created_by=f"jetkeep {__version__}"
        )
        if seal_for:
            from jetkeep.repository.keys import create_keys  # noqa: PLC0415 - as above

            # First the keys: a repository without them could never be read.
            await create_keys(store, seal_for.recipients, seal_for.passphrase, now_ns=now_ns)
            document.features, document.sealing = ["sealed"], Sealing()
        with contextlib.suppress(AlreadyThereError):  # somebody else's first backup was quicker
            await create_surely(store, layout.REPOSITORY, encoding.seal(document), durable=True)
            if not store.remote and not seal_for:
                return cls(store, document)
        # Some object stores tell several writers that each was first: what is there counts.
        return await cls.open(store)

    @classmethod
    async def open_or_create(
        cls, store: Store, *, now_ns: LeaseClock, seal_for: SealFor | None = None, pinned: str | None = None
    ) -> Repository:
        """Open the repository, or create it where nothing is.

        Raises:
            AccessDeniedError: it is not sealed, or not for the pinned recipient, and it is to be.
        """
        try:
            found = await cls.open(store, pinned=pinned)
        except NoRepositoryError:
            try:
                found = await cls.create(store, now_ns=now_ns, seal_for=seal_for)
            except UsageError as refusal:
                try:
                    found = await cls.open(store, pinned=pinned)  # somebody created it since we looked
                except NoRepositoryError:
                    raise refusal from None
        if seal_for and not found.sealed:
            raise refusals.not_sealed(store.url)
        return found

    # Writing, in this order: segments, manifests, commit.

    async def put_segment(self, source: str, stream: str, timeline: str, segment: SegmentBytes) -> SegmentRef:
        """Store a segment; durable with the commit. Equal bytes that are there already are read, compared and used."""
        prefix = layout.timeline_prefix(check_source(source), stream, timeline)
        first, last = segment.first_seq, segment.last_seq
        key, digest, size = await self._put_sealed(
            segment.data, lambda digest, copy: layout.segment_key(prefix, first, last, digest, copy)
        )
        return SegmentRef(
            key=key,
            sha256=digest,
            bytes=size,
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
        prefix = layout.timeline_prefix(check_source(manifest.source), manifest.stream, manifest.timeline)
        label = check_label(manifest.label)
        needs = [ManifestRef(key=one.key, sha256=one.sha256, bytes=one.bytes) for one in manifest.segments]
        key, digest, size = await self._put_sealed(
            data, lambda digest, copy: layout.manifest_key(prefix, label, digest, copy), needs
        )
        return ManifestRef(key=key, sha256=digest, bytes=size)

    async def put_files(self, source: str, label: str, archive: bytes) -> ManifestRef:
        """Store the archive of a backup's files; durable with the commit."""
        check_source(source), check_label(label)
        key, digest, size = await self._put_sealed(
            archive, lambda digest, copy: layout.files_key(source, label, digest, copy)
        )
        return ManifestRef(key=key, sha256=digest, bytes=size)

    async def _put_sealed(
        self, data: bytes | memoryview, key_of: Callable[[str, int], str], needs: Sequence[ManifestRef] = ()
    ) -> tuple[str, str, int]:
        """Store an object, sealed where the repository is; its key, digest and bytes as they are stored."""
        suffix = ""
        if self.vault:
            suffix = layout.SEALED
            data = await self.vault.seal(data, layout.bound_name(key_of("0" * 16, 1)), needs)
        digest = await digest_of(data)
        key = await self._put(data, digest, lambda copy: key_of(digest, copy) + suffix)
        return key, digest, len(data)

    async def _put(self, data: bytes | memoryview, digest: str, key_of: Callable[[int], str]) -> str:
        first, there = await self._sharing.start(key_of)
        for copy in range(first, _COPIES + 1):
            key = key_of(copy)
            try:
                if not (there and copy == first):
                    await create_surely(self.store, key, data, durable=False)
                    return key
            except AlreadyThereError:
                pass
            try:
                if await self._sharing.may_use(key):
                    await self._read_proven(key, digest, len(data))
                    return key
            except (BadDataError, StoreError):
                continue  # damaged bytes hold the name: write beside them
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
            backup = await self._vouched(backup)
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

    async def _vouched(self, backup: Backup) -> Backup:
        if self.vault:
            return await self.vault.vouch(backup)
        return msgspec.structs.replace(backup, features=[], sealed=msgspec.UNSET)

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
        if self.vault:
            self.vault.check(backup, encoding.open_envelope(data, key), key)
        elif backup.sealed:
            raise encoding.damaged(key, f"it is sealed, and {layout.REPOSITORY} says that nothing here is", "mismatch")
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
        data = await self._read_opened(ref, backup)
        manifest = await asyncio.to_thread(encoding.decode_manifest, data, ref.key)
        if what := difference(backup, entry, manifest):
            raise encoding.damaged(ref.key, f"its {what} is not what backup {backup.label} says", "mismatch")
        prefix = layout.timeline_prefix(manifest.source, manifest.stream, manifest.timeline)
        for key in (ref.key, *(one.key for one in manifest.segments)):
            if not key.startswith(prefix):
                raise encoding.damaged(ref.key, f"{key} is not of timeline {manifest.timeline}", "timeline")
        return manifest

    async def read_segment(self, ref: SegmentRef) -> bytes:
        """A segment's bytes, proven and opened.

        Raises:
            BadDataError: it is damaged or absent.
            AccessDeniedError: it is sealed, and no identity was given.
        """
        return await self._read_opened(ref)

    async def needs_of(self, backup: Backup, entry: StreamEntry) -> list[ManifestRef]:
        """The segments that a stream of a backup needs; without an identity, too.

        Raises:
            BadDataError: the manifest is damaged or absent.
        """
        ref = entry.manifest
        assert ref is not None, "a failed stream has no manifest"
        if self.vault is None or self.readable:
            found = (await self.read_manifest(backup, entry)).segments
            return [ManifestRef(key=one.key, sha256=one.sha256, bytes=one.bytes) for one in found]
        from jetkeep.repository.vault import needs_of  # noqa: PLC0415 - as above

        return needs_of(await self._read_proven(ref.key, ref.sha256, ref.bytes), ref.key)

    async def prove(self, ref: ManifestRef | SegmentRef) -> bytes:
        """A stored object, sealed as it may be, once it was compared with its digest.

        Raises:
            BadDataError: it is damaged or absent.
        """
        return await self._read_proven(ref.key, ref.sha256, ref.bytes)

    def protecting(
        self, backups: Sequence[Backup], *, now_ns: LeaseClock
    ) -> contextlib.AbstractAsyncContextManager[Lease | None]:
        """Keep `expire` from backups while the block runs; where nothing may be written, None: without that protection."""
        return lease_if_possible(self.store, "read", now_ns=now_ns, labels=[one.label for one in backups])

    async def _read_opened(self, ref: SegmentRef | ManifestRef, backup: Backup | None = None) -> bytes:
        data = await self._read_proven(ref.key, ref.sha256, ref.bytes)
        return await self.vault.open(data, ref.key, backup) if self.vault else data

    async def read_files(self, backup: Backup) -> bytes:
        """The archive of the files in a backup that has them, proven.

        Raises:
            BadDataError: it is damaged or absent.
        """
        ref = backup.files.archive if backup.files else None
        assert ref is not None, "a backup without files has no archive"
        if layout.kind_of(ref.key) != "files" or not ref.key.startswith(f"{layout.SOURCES}{backup.source}/"):
            raise encoding.damaged(ref.key, f"it is no archive of {backup.source}'s files", "mismatch")
        return await self._read_opened(ref, backup)

    async def _read_proven(self, key: str, digest: str, size: int) -> bytes:
        try:
            data = await self.store.read(key, size)
        except NoObjectError:
            raise refusals.missing(key) from None
        if len(data) < size:
            raise encoding.damaged(key, f"it is cut: {len(data)} of {size} bytes are there", "truncated")
        if await digest_of(data) != digest:
            raise encoding.damaged(key, "its bytes do not have the digest that is stated for them")
        return data


async def digest_of(data: bytes | memoryview) -> str:
    """SHA-256, as documents state it."""
    if len(data) < 64 * 1024:  # a thread costs more
        return hashlib.sha256(data).hexdigest()
    return await asyncio.to_thread(lambda: hashlib.sha256(data).hexdigest())


def _manifest_bytes(manifest: Manifest) -> bytes:
    data = encoding.encode_manifest(manifest)
    encoding.decode_manifest(data, f"the manifest of {manifest.stream}")  # what cannot be read is not written
    return data
