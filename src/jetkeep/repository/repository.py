"""A repository: what may be written in which order, and what must be checked before a byte is believed."""

from __future__ import annotations

import asyncio
import hashlib
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from jetkeep import __version__
from jetkeep.errors import AlreadyThereError, BadDataError, JetkeepError, NoObjectError, NoRepositoryError, UsageError
from jetkeep.repository import documents, layout
from jetkeep.repository.documents import (
    Backup,
    Manifest,
    ManifestRef,
    Pin,
    RepositoryDocument,
    SegmentRef,
    StreamEntry,
)
from jetkeep.repository.leases import rfc3339
from jetkeep.repository.local import LocalStore
from jetkeep.repository.names import check_label, check_source
from jetkeep.repository.store import Store

if TYPE_CHECKING:
    from jetkeep.codecs.segment import SegmentBytes

#: Objects that are read at once when many small ones are wanted.
READS_AT_ONCE = 32
_URL = re.compile(r"([a-z][a-z0-9+.-]*)://(.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Damage:
    """An object that could not be read as what it must be."""

    key: str
    error: JetkeepError


def store_at(url: str) -> LocalStore:
    """The store at a path or a `file://` URL.

    Raises:
        UsageError: the URL's scheme is not known.
    """
    found = _URL.fullmatch(url)
    if found and found[1] != "file":
        raise UsageError(
            f"a repository at {found[1]}:// is not supported yet",
            code="usage.repo-scheme",
            hint="give a path or a file:// URL",
        )
    return LocalStore(Path(found[2] if found else url).expanduser())


class Repository:
    """One repository in a store. Reading checks everything; writing keeps the order of docs/format.md."""

    def __init__(self, store: Store, document: RepositoryDocument) -> None:
        self.store = store
        self.id = document.id
        self.document = document

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
            data = await store.read(layout.REPOSITORY, documents.MAX_DOCUMENT)
        except NoObjectError:
            raise NoRepositoryError(
                f"there is no repository at {store.url}",
                means="nothing was read or written",
                hint="check --repo or JETKEEP_REPO; `jetkeep init` or the first `jetkeep backup` creates one",
            ) from None
        return cls(store, documents.unseal(data, layout.REPOSITORY, RepositoryDocument))

    @classmethod
    async def create(cls, store: Store, *, now_ns: Callable[[], int]) -> Repository:
        """Create a repository where the store is empty; durable on return.

        Raises:
            UsageError: something else is there.
        """
        async for info in store.list(""):
            if info.key == layout.REPOSITORY:
                raise UsageError(f"{store.url} is a repository already", code="usage.repository-exists")
            raise UsageError(
                f"{store.url} is not empty and is no repository (it holds {info.key})",
                code="usage.not-empty",
                means="nothing was written there",
                hint="choose an empty or absent directory",
            )
        document = RepositoryDocument(
            id=secrets.token_hex(16), created_at=rfc3339(now_ns()), created_by=f"jetkeep {__version__}"
        )
        try:
            await store.create(layout.REPOSITORY, documents.seal(document))
        except AlreadyThereError:
            return await cls.open(store)  # somebody else's first backup was quicker
        return cls(store, document)

    @classmethod
    async def open_or_create(cls, store: Store, *, now_ns: Callable[[], int]) -> Repository:
        """Open the repository, or create it where nothing is."""
        try:
            return await cls.open(store)
        except NoRepositoryError:
            return await cls.create(store, now_ns=now_ns)

    # Writing, in this order: segments, manifests, commit.

    async def put_segment(self, source: str, stream: str, timeline: str, segment: SegmentBytes) -> SegmentRef:
        """Store a segment; durable with the commit. Equal bytes that are there already are read, compared and used."""
        digest = await asyncio.to_thread(lambda: hashlib.sha256(segment.data).hexdigest())
        prefix = layout.timeline_prefix(check_source(source), stream, timeline)
        key = await self._put(
            segment.data,
            digest,
            lambda copy: layout.segment_key(prefix, segment.first_seq, segment.last_seq, digest, copy),
        )
        return SegmentRef(
            key=key,
            sha256=digest,
            bytes=len(segment.data),
            first_seq=segment.first_seq,
            last_seq=segment.last_seq,
            count=segment.count,
            first_ts_ns=segment.first_ts,
            last_ts_ns=segment.last_ts,
            raw_bytes=segment.raw_bytes,
            fingerprint=segment.fingerprint,
        )

    async def put_manifest(self, manifest: Manifest) -> ManifestRef:
        """Store a manifest; durable with the commit."""
        data = documents.encode_manifest(manifest)
        digest = hashlib.sha256(data).hexdigest()
        prefix = layout.timeline_prefix(manifest.source, manifest.stream, manifest.timeline)
        key = await self._put(data, digest, lambda copy: layout.manifest_key(prefix, manifest.label, digest, copy))
        return ManifestRef(key=key, sha256=digest, bytes=len(data))

    async def _put(self, data: bytes | memoryview, digest: str, key_of: Callable[[int], str]) -> str:
        for copy in range(1, 100):
            key = key_of(copy)
            try:
                await self.store.create(key, data, durable=False)
            except AlreadyThereError:
                try:
                    await self._read_proven(key, digest, len(data))
                except BadDataError:
                    continue
            return key
        raise BadDataError(f"{key_of(1)} and 98 more of its name are damaged", code="data.damaged")

    async def commit(self, backup: Backup) -> None:
        """Make the backup exist: everything it names is durable first, then its own object.

        Raises:
            UsageError: the label is taken.
        """
        await self.store.sync()
        try:
            await self.store.create(layout.backup_key(backup.label), documents.seal(backup))
        except AlreadyThereError:
            raise label_taken(backup.label) from None

    async def free_label(self, wanted: str | None, started: datetime) -> str:
        """The wanted label, or one from the time; the commit still decides who gets it.

        Raises:
            UsageError: the wanted label is taken or cannot be one.
        """
        taken = {info.key async for info in self.store.list(layout.BACKUPS)}
        if wanted is not None:
            if layout.backup_key(check_label(wanted)) in taken:
                raise label_taken(wanted)
            return wanted
        base = started.strftime("%Y%m%d-%H%M%S")
        label, copy = base, 1
        while layout.backup_key(label) in taken:
            copy += 1
            label = f"{base}-{copy}"
        return label

    # Reading.

    async def backups(self) -> tuple[list[Backup], list[Damage]]:
        """All backups in the order in which they began, and what could not be read."""
        keys = [info.key async for info in self.store.list(layout.BACKUPS) if info.key.endswith(".json")]
        limit = asyncio.Semaphore(READS_AT_ONCE)

        async def one(key: str) -> Backup | Damage | None:
            async with limit:
                try:
                    return await self._backup_at(key)
                except NoObjectError:
                    return None  # expired between listing and reading
                except BadDataError as wrong:
                    return Damage(key, wrong)

        found = await asyncio.gather(*(one(key) for key in keys))
        whole = [item for item in found if isinstance(item, Backup)]
        return (
            sorted(whole, key=lambda backup: (backup.started_at, backup.label)),
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
            raise UsageError(
                f"there is no backup {label} in {self.url}",
                code="usage.no-such-backup",
                hint="`jetkeep info` lists the labels",
            ) from None

    async def _backup_at(self, key: str) -> Backup:
        backup = documents.unseal(await self.store.read(key, documents.MAX_DOCUMENT), key, Backup)
        if layout.backup_key(backup.label) != key:
            raise documents.damaged(key, f"it says that it is backup {backup.label}")
        if backup.repository != self.id:
            raise documents.damaged(key, f"it belongs to another repository ({backup.repository})")
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
        """The manifest of a stream in a backup, proven and compared with what the backup says of it.

        Raises:
            BadDataError: it is damaged, absent, or says something else than the backup.
        """
        ref = entry.manifest
        assert ref is not None, "a failed stream has no manifest"
        manifest = documents.decode_manifest(await self._read_proven(ref.key, ref.sha256, ref.bytes), ref.key)
        for what in ("timeline", "messages", "first_seq", "last_seq", "bytes", "fingerprint"):
            if getattr(manifest, what) != getattr(entry, what):
                raise documents.damaged(ref.key, f"its {what} is not what backup {backup.label} says")
        if (manifest.source, manifest.stream, manifest.label) != (backup.source, entry.name, backup.label):
            raise documents.damaged(ref.key, f"it is not of {entry.name} in backup {backup.label}")
        return manifest

    async def read_segment(self, ref: SegmentRef) -> bytes:
        """A segment's bytes, proven.

        Raises:
            BadDataError: it is damaged or absent.
        """
        return await self._read_proven(ref.key, ref.sha256, ref.bytes)

    async def _read_proven(self, key: str, digest: str, size: int) -> bytes:
        try:
            data = await self.store.read(key, size)
        except NoObjectError:
            raise BadDataError(
                f"{key} is missing",
                code="data.missing",
                means="what depends on this object cannot be read; other backups are not affected",
                hint="run `jetkeep verify` to see which backups it touches, and restore from another one",
            ) from None
        if len(data) != size or await asyncio.to_thread(lambda: hashlib.sha256(data).hexdigest()) != digest:
            raise documents.damaged(key, f"{len(data)} bytes do not have the digest that is stated for its {size}")
        return data

    # Pins.

    async def pins(self) -> dict[str, Pin]:
        """Pins by label."""
        found = {}
        async for info in self.store.list(layout.PINS):
            pin = documents.unseal(await self.store.read(info.key, documents.MAX_DOCUMENT), info.key, Pin)
            found[pin.label] = pin
        return found

    async def pin(self, label: str, reason: str, *, now_ns: Callable[[], int]) -> None:
        """Pin a backup; durable on return. Pinning twice keeps the first reason."""
        await self.read_backup(label)
        pin = Pin(label=label, pinned_at=rfc3339(now_ns()), reason=reason)
        try:
            await self.store.create(layout.pin_key(label), documents.seal(pin))
        except AlreadyThereError:
            return

    async def unpin(self, label: str) -> None:
        """Take a pin away; one that is not there is away already."""
        await self.store.delete(layout.pin_key(check_label(label)))


def label_taken(label: str) -> UsageError:
    """The error for a label that another backup has."""
    return UsageError(
        f"there is a backup {label} already",
        code="usage.label-taken",
        means="that backup is untouched; this run committed nothing",
        hint="choose another --label, or none",
    )
