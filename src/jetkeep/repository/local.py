"""A directory as a store: whole files only, never overwritten, durable when it says so.

A file is written under a `.partial` name, then linked to its own name, which fails where that is taken; so no reader
ever sees half an object, and two writers cannot both win. Folders and files are the owner's alone (0700, 0600).
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import TypeVar

from jetkeep.errors import BadDataError
from jetkeep.repository import durable as disk
from jetkeep.repository.disk_errors import explain, nearest
from jetkeep.repository.layout import LEASES, check_key
from jetkeep.repository.store import ObjectInfo

T = TypeVar("T")

#: Entries of a listing that one thread call fetches.
_LISTED_AT_ONCE = 1000
#: Made by file systems in their topmost folder, and not readable by everybody.
_NOT_OURS = "lost+found"


class LocalStore:
    """A directory on this machine (a disk, a PVC, a mount)."""

    def __init__(self, root: Path) -> None:
        self._root = root.absolute()
        self._pending = disk.Pending(self._root)

    @property
    def url(self) -> str:
        """The directory's path."""
        return str(self._root)

    @property
    def remote(self) -> bool:
        """No: reading a file costs next to nothing."""
        return False

    async def create(self, key: str, data: bytes | memoryview, *, durable: bool = True) -> None:
        """Create a file; see Store.create."""
        path = self._path(key)
        if not durable:
            self._pending.begin()
        try:
            await self._do("write", key, lambda: disk.create(self._root, path, data, durable=durable))
        finally:
            # Also one that was there: whoever wrote it may have died before it was durable.
            if not durable and path.exists():
                self._pending.file(path)

    async def replace(self, key: str, data: bytes) -> None:
        """Put a file whether or not it is there, atomically; see Store.replace."""
        path = self._path(key)
        await self._do("write", key, lambda: disk.replace(self._root, path, data))
        self._pending.folder(path.parent)

    async def sync(self) -> None:
        """Make every waiting file, its folder, and deletions durable."""
        await self._do("sync", "", self._pending.sync)

    async def read(self, key: str, max_bytes: int) -> bytes:
        """A whole file; see Store.read."""
        path = self._path(key)
        return await self._do("read", key, lambda: _read(path, key, max_bytes))

    async def list(self, prefix: str) -> AsyncIterator[ObjectInfo]:
        """All files whose key begins with `prefix`; unfinished ones are not objects."""
        found = _walk(self._root, prefix)
        while some := await self._do("list", prefix, lambda: list(islice(found, _LISTED_AT_ONCE))):
            for info in some:
                if not info.key.endswith(disk.UNFINISHED):
                    yield info

    async def delete(self, key: str) -> None:
        """Delete a file, and the folders that this leaves empty."""
        path = self._path(key)
        await self._do("delete", key, lambda: _delete(self._root, path))
        self._pending.folder(path.parent)

    async def remove_unfinished(self, before_ns: int) -> int:
        """Remove `.partial` files that were last written before that time."""
        return await self._do("delete", "", lambda: _remove_unfinished(self._root, before_ns))

    async def free_bytes(self) -> int | None:
        """Room that is left to this user, in bytes."""
        return (await self._do("look at", "", lambda: shutil.disk_usage(nearest(self._root)))).free

    def _path(self, key: str) -> Path:
        return self._root.joinpath(*check_key(key).split("/"))

    async def _do(self, verb: str, key: str, work: Callable[[], T]) -> T:
        try:
            return await asyncio.to_thread(work)
        except OSError as failure:
            raise explain(self._root, verb, key, failure) from failure


def _read(path: Path, key: str, max_bytes: int) -> bytes:
    with path.open("rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        if size <= max_bytes:
            return file.read() or b""
    raise BadDataError(
        f"{key} has {size} bytes, more than the {max_bytes} that it may have",
        code="data.damaged",
        means="what depends on this object cannot be read",
        hint="run `jetkeep verify` to see which backups it touches",
    )


def _walk(root: Path, prefix: str) -> Iterator[ObjectInfo]:
    folders = [prefix.rpartition("/")[0]]
    while folders:
        folder = folders.pop()
        try:
            with os.scandir(root / folder) as entries:
                for entry in entries:
                    key = f"{folder}/{entry.name}" if folder else entry.name
                    if entry.is_dir(follow_symlinks=False):
                        if key != _NOT_OURS:
                            folders.append(key)
                    elif key.startswith(prefix):
                        with suppress(FileNotFoundError):  # deleted while the listing ran
                            facts = entry.stat()
                            yield ObjectInfo(key, facts.st_size, facts.st_mtime_ns)
        except FileNotFoundError:
            continue  # deleted while the listing ran, or never made


def _delete(root: Path, path: Path) -> None:
    with suppress(FileNotFoundError, NotADirectoryError):
        path.unlink()
    for folder in path.parents:
        if root in (folder, folder.parent) or folder == root / LEASES:
            break  # a full disk has no room to make that folder again
        try:
            folder.rmdir()
        except OSError:
            break  # not empty, which is the usual case


def _remove_unfinished(root: Path, before_ns: int) -> int:
    removed = 0
    for info in list(_walk(root, "")):
        if info.key.endswith(disk.UNFINISHED) and info.modified_ns < before_ns:
            (root / info.key).unlink(missing_ok=True)
            removed += 1
    return removed
