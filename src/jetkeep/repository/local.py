"""A directory as a store: whole files only, never overwritten, durable when it says so.

A file is written under a `.partial` name, made durable, then linked to its own name, which fails where that is
taken; so no reader ever sees half an object, and two writers cannot both win.
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import os
import secrets
import shutil
import sys
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from jetkeep.errors import (
    AccessDeniedError,
    AlreadyThereError,
    BadDataError,
    NoObjectError,
    StoreError,
    StoreFailedError,
)
from jetkeep.repository.store import ObjectInfo

T = TypeVar("T")

#: From this many waiting files on, one sync of the whole file system is cheaper than one of each.
MANY_FILES = 64


class LocalStore:
    """A directory on this machine (a disk, a PVC, a mount)."""

    def __init__(self, root: Path) -> None:
        self._root = root.absolute()
        self._waiting: set[Path] = set()

    @property
    def url(self) -> str:
        """The directory's path."""
        return str(self._root)

    async def create(self, key: str, data: bytes | memoryview, *, durable: bool = True) -> None:
        """Create a file; see Store.create."""
        path = self._path(key)
        await self._do("write", key, lambda: self._create(path, data, durable))
        if not durable:
            self._waiting.add(path)

    async def replace(self, key: str, data: bytes) -> None:
        """Put a file whether or not it is there, atomically; for leases."""
        await self._do("write", key, lambda: _replace(self._path(key), data))

    async def sync(self) -> None:
        """Make every waiting file and its folder durable."""
        waiting, self._waiting = self._waiting, set()
        if waiting:
            await self._do("sync", "", lambda: _sync(self._root, waiting))

    async def read(self, key: str, max_bytes: int) -> bytes:
        """A whole file; see Store.read."""
        return await self._do("read", key, lambda: _read(self._path(key), key, max_bytes))

    async def list(self, prefix: str) -> AsyncIterator[ObjectInfo]:
        """All files whose key begins with `prefix`; unfinished ones are not objects."""
        for info in await self._do("list", prefix, lambda: list(_walk(self._root, prefix))):
            yield info

    async def delete(self, key: str) -> None:
        """Delete a file, and the folders that this leaves empty."""
        await self._do("delete", key, lambda: _delete(self._root, self._path(key)))

    async def free_bytes(self) -> int | None:
        """Room that is left to this user, in bytes."""
        return (await self._do("look at", "", lambda: shutil.disk_usage(_nearest(self._root)))).free

    def _path(self, key: str) -> Path:
        parts = key.split("/")
        if not key or any(part in ("", ".", "..") or "\0" in part for part in parts):
            raise BadDataError(
                f"'{key}' is no key of a repository",
                code="data.key",
                means="nothing outside of the repository was touched",
                hint="the document that names it is damaged or was made to do harm: run `jetkeep verify`",
            )
        return self._root.joinpath(*parts)

    def _create(self, path: Path, data: bytes | memoryview, durable: bool) -> None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        partial = path.with_name(f"{path.name[:160]}.{secrets.token_hex(6)}.partial")
        try:
            _write(partial, data, durable)
            os.link(partial, path)
        finally:
            partial.unlink(missing_ok=True)
        if durable:
            _sync_folders({path.parent}, self._root)

    async def _do(self, verb: str, key: str, work: Callable[[], T]) -> T:
        try:
            return await asyncio.to_thread(work)
        except OSError as failure:
            raise self._explain(verb, key, failure) from failure

    def _explain(self, verb: str, key: str, failure: OSError) -> StoreError:
        where = f"{self._root}/{key}" if key else str(self._root)
        words = f"cannot {verb} {where}: {failure.strerror or failure}"
        if failure.errno == errno.EEXIST:
            return AlreadyThereError(f"{where} is already there")
        if failure.errno in (errno.ENOENT, errno.ENOTDIR) and verb in ("read", "delete"):
            return NoObjectError(
                f"{where} is not there",
                means="what depends on this object cannot be read",
                hint="run `jetkeep verify` to see which backups it touches",
            )
        safe = "finished backups are untouched; what this run wrote and did not commit does not count"
        if failure.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            hint = "make the directory writable" if verb != "read" else "make the file readable"
            return AccessDeniedError(
                words, means=safe, hint=f"{hint} for user {os.geteuid()}, or choose another --repo"
            )
        if failure.errno in (errno.ENOSPC, errno.EDQUOT):
            free = shutil.disk_usage(_nearest(self._root)).free
            return StoreFailedError(
                f"{words} ({free} bytes are left)",
                code="store.full",
                means=safe,
                hint="make room, for instance with `jetkeep expire`, or use a larger volume; then run it again",
            )
        return StoreFailedError(words, means=safe, hint="look at the disk or mount, then run it again", retryable=True)


def _write(path: Path, data: bytes | memoryview, durable: bool) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(handle, view) :]
        if durable:
            os.fsync(handle)
    finally:
        os.close(handle)


def _replace(path: Path, data: bytes) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{secrets.token_hex(6)}.partial")
    try:
        _write(partial, data, durable=True)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _read(path: Path, key: str, max_bytes: int) -> bytes:
    with path.open("rb") as file:
        data = file.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise BadDataError(
            f"{key} is larger than the {max_bytes} bytes that it must have",
            code="data.damaged",
            means="what depends on this object cannot be read",
            hint="run `jetkeep verify` to see which backups it touches",
        )
    return data


def _walk(root: Path, prefix: str) -> list[ObjectInfo]:
    found = []
    folder = root / prefix.rpartition("/")[0]
    for at, folders, files in os.walk(folder):
        folders.sort()
        for name in files:
            if name.endswith(".partial"):
                continue
            path = Path(at, name)
            key = path.relative_to(root).as_posix()
            if key.startswith(prefix):
                try:
                    facts = path.stat()
                except FileNotFoundError:
                    continue  # deleted while the listing ran
                found.append(ObjectInfo(key, facts.st_size, facts.st_mtime_ns))
    return found


def _delete(root: Path, path: Path) -> None:
    path.unlink(missing_ok=True)
    for folder in path.parents:
        if folder == root:
            break
        try:
            folder.rmdir()
        except OSError:
            break  # not empty, which is the usual case


def _sync(root: Path, paths: set[Path]) -> None:
    if len(paths) >= MANY_FILES and sys.platform == "linux" and _sync_file_system(root):
        return
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(_sync_path, paths))
    _sync_folders({path.parent for path in paths}, root)


def _sync_file_system(root: Path) -> bool:
    """syncfs(2): false where the C library has none; an error of the disk is raised like any other."""
    library = ctypes.CDLL(None, use_errno=True)
    if not hasattr(library, "syncfs"):
        return False
    handle = os.open(root, os.O_RDONLY)
    try:
        if library.syncfs(handle) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
    finally:
        os.close(handle)
    return True


def _sync_folders(folders: set[Path], root: Path) -> None:
    """A file's name is durable when its folder is, and that one's name when its parent is."""
    every = {one for folder in folders for one in (folder, *folder.parents) if one == root or root in one.parents}
    for folder in every:
        _sync_path(folder)


def _sync_path(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _nearest(path: Path) -> Path:
    """The path, or the nearest folder above it that exists."""
    return next(one for one in (path, *path.parents) if one.exists())
