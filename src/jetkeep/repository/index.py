"""An index of backup objects, for stores where each read is a request: thousands of them come back in a few.

Never the truth: an entry counts only while the listing shows its object with the same size and time of change, and it
holds the object's own bytes with their digest (docs/format.md, *Index*). Without any index everything still works.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import Iterable, Sequence

import msgspec
import zstandard

from jetkeep.errors import BadDataError, StoreError
from jetkeep.repository import encoding, layout
from jetkeep.repository.documents import Index, IndexEntry
from jetkeep.repository.store import ObjectInfo, Store, create_surely, side_by_side

#: Entries of an index object that is not written again.
FULL = 4096
#: So many backups are read one by one before the last index object is written anew.
LOOSE = 3
#: Larger backup objects (many streams) are read themselves.
_MAX_ENTRY = 64 * 1024


class BackupIndex:
    """What is known of the backup objects in a store, and what is not indexed yet."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._keys: list[str] = []
        self._entries: dict[str, IndexEntry] = {}
        self._loose: dict[str, IndexEntry] = {}

    async def load(self) -> None:
        """Read the index objects. One that is damaged or vanishes is as good as none."""
        self._keys = [info.key async for info in self._store.list(layout.INDEX) if layout.index_of(info.key)]
        wanted = [key for key in self._keys if layout.index_of(key) == "full"]
        wanted += sorted(key for key in self._keys if layout.index_of(key) == "tail")[-1:]

        async def one(key: str) -> Sequence[IndexEntry]:
            try:
                data = await self._store.read(key, encoding.MAX_DOCUMENT)
                return (await asyncio.to_thread(_decode, data, key)).entries
            except (BadDataError, StoreError):
                return ()

        self._entries = {entry.key: entry for entries in await side_by_side(one, wanted) for entry in entries}
        self._loose = {}

    def text(self, info: ObjectInfo) -> bytes | None:
        """The bytes of the object that a listing shows, None when they must be read."""
        entry = self._entries.get(info.key)
        if entry is None or (entry.size, entry.modified_ns) != (info.size, info.modified_ns):
            return None
        return entry.text.encode()

    def note(self, info: ObjectInfo, data: bytes) -> None:
        """An object that was read itself, for the next index."""
        if len(data) == info.size <= _MAX_ENTRY:
            self._loose[info.key] = IndexEntry(
                key=info.key, size=info.size, modified_ns=info.modified_ns, text=data.decode()
            )

    async def write(self, live: Iterable[str]) -> None:
        """Index what is not indexed yet, when that is much; index objects that this replaces are deleted where permitted.

        Args:
            live: the keys that the listing showed; the rest is forgotten.
        """
        shown = set(live)
        dead = sum(key not in shown for key in self._entries)
        if len(self._loose) < LOOSE and dead <= max(FULL // 4, len(self._entries) // 2):
            return
        entries = [one for key, one in sorted((self._entries | self._loose).items()) if key in shown]
        # It saves requests, no more: what cannot be written now is written by the next backup.
        with contextlib.suppress(StoreError):
            await self._replace(entries)

    async def _replace(self, entries: list[IndexEntry]) -> None:
        generation = 1 + max((int(key.split("-")[1]) for key in self._keys), default=0)
        written = set()
        full = len(entries) // FULL * FULL
        for kind, some in [
            *(("full", entries[at : at + FULL]) for at in range(0, full, FULL)),
            ("tail", entries[full:]),
        ]:
            data = await asyncio.to_thread(_encode, some)
            # A full one has the same name as long as it has the same entries.
            key = layout.index_key(kind, 0 if kind == "full" else generation, hashlib.sha256(data).hexdigest())
            if key not in self._keys:
                await create_surely(self._store, key, data, durable=True)
            written.add(key)
        for key in self._keys:
            if key not in written:
                await self._store.delete(key)
        self._keys, self._loose = sorted(written), {}


def _encode(entries: list[IndexEntry]) -> bytes:
    return zstandard.ZstdCompressor(level=3).compress(msgspec.json.encode(Index(entries=entries)))


def _decode(data: bytes, key: str) -> Index:
    return encoding.decode_compressed(data, key, Index)
