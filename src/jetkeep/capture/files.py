"""Files that go into a backup beside the streams: server configuration, JWTs, credentials (docs/format.md, *Files*)."""

from __future__ import annotations

import asyncio
import glob
import io
import os
import stat
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

import zstandard

from jetkeep.errors import StoreFailedError, UsageError
from jetkeep.repository.documents import Failure, FilesEntry
from jetkeep.repository.encoding import damaged
from jetkeep.repository.fanout import FanOut

#: Together; a reader refuses more.
MOST_BYTES = 64 * 1024 * 1024


async def store_files(into: FanOut, source: str, label: str, patterns: Sequence[str]) -> FilesEntry:
    """Store the files that the patterns name; why there are none, where one cannot be had: streams come first.

    Raises:
        StoreError: the store failed.
    """
    try:
        archive, count = await asyncio.to_thread(pack, patterns)
    except UsageError as failure:
        return FilesEntry(status="failed", error=Failure.of(failure))
    return FilesEntry(status="complete", archive=await into.put_files(source, label, archive), count=count)


def find_files(patterns: Sequence[str]) -> list[Path]:
    """The files that paths, globs and directories name, by their absolute paths, sorted.

    A link is followed where it is named or lies in a directory and leads to a file, as Kubernetes mounts its secrets.

    Raises:
        UsageError: one of them names nothing, or something that is no file.
    """
    found: set[Path] = set()
    for pattern in patterns:
        expanded = os.path.expanduser(pattern)  # noqa: PTH111 - a glob is no path
        named = [expanded] if os.path.lexists(expanded) else glob.glob(expanded, recursive=True)  # noqa: PTH207
        files = [one for name in named for one in _under(Path(name).absolute())]
        if not files:
            raise _bad(f"no file is at {pattern}", "check include-files: paths, directories or globs")
        found.update(files)
    return sorted(found)


def _under(path: Path) -> Iterator[Path]:
    if not path.is_dir():
        yield Path(os.path.normpath(path))
        return
    for folder, _, names in os.walk(path):
        # Kubernetes keeps what a mounted secret's links lead to in folders called `..<time>`.
        if not Path(folder).name.startswith(".."):
            yield from (Path(os.path.normpath(folder)) / name for name in names)


def pack(patterns: Sequence[str]) -> tuple[bytes, int]:
    """The archive of the files that the patterns name, and how many they are. Work for a thread; in memory.

    Raises:
        UsageError: a file is not there, cannot be read, or they are too large together.
    """
    files = find_files(patterns)
    out = io.BytesIO()
    total = 0
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path in files:
            info, data = _read(path, MOST_BYTES - total)
            total += len(data)
            archive.addfile(info, io.BytesIO(data))
    plain = out.getvalue()
    if len(plain) > MOST_BYTES:
        raise _too_large(files[-1])
    return zstandard.ZstdCompressor(level=3).compress(plain), len(files)


def _read(path: Path, room: int) -> tuple[tarfile.TarInfo, bytes]:
    try:
        # Not to hang on a pipe that nobody writes to.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            facts = os.fstat(file.fileno())
            if not stat.S_ISREG(facts.st_mode):
                raise _bad(f"{path} is no regular file", "name only files and directories of files")
            data = file.read(room + 1)
    except OSError as failure:
        raise _bad(f"{path} cannot be read: {failure.strerror}", "check the path, and who may read it") from None
    if len(data) > room:
        raise _too_large(path)
    info = tarfile.TarInfo(str(PurePosixPath(path).relative_to("/")))
    info.size, info.mode, info.mtime = len(data), stat.S_IMODE(facts.st_mode), int(facts.st_mtime)
    return info, data


def _too_large(path: Path) -> UsageError:
    return _bad(
        f"the files are larger than {MOST_BYTES // 1024**2} MiB together: {path} does not fit",
        "name the files that are needed to begin again, not the server's data",
    )


def _bad(what: str, hint: str) -> UsageError:
    return UsageError(what, code="usage.files", means="the files are not in the backup; streams are", hint=hint)


def unpack(archives: Mapping[str, bytes], root: Path) -> list[Path]:
    """Write archives' files below `root`, which must be absent or empty; what was written, sorted.

    Each archive gets the folder that it is under in `archives`; `""` is `root` itself. Every file can be read by its
    owner only, whatever it was: there are keys among them.

    Raises:
        BadDataError: one is no archive of files; nothing was written.
        UsageError: something is at `root`.
        StoreFailedError: a file could not be written.
    """
    files = [(root / folder / name, data) for folder, one in archives.items() for name, data in _members(one, folder)]
    try:
        if root.is_symlink() or (root.exists() and (not root.is_dir() or any(root.iterdir()))):
            raise UsageError(
                f"{root} is there already, and not empty",
                code="usage.directory",
                means="nothing was written",
                hint="name a directory that is not there yet",
            )
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        return sorted(_write(path, data) for path, data in files)
    except OSError as failure:
        raise StoreFailedError(
            f"cannot write to {failure.filename or root}: {failure.strerror}",
            code="files.write",
            means="the backup is untouched; not all files were written",
            hint="make room, or choose another directory",
        ) from None


def _write(path: Path, data: bytes) -> Path:
    for folder in reversed([one for one in path.parents if not one.exists()]):
        folder.mkdir(mode=0o700)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(data)
    return path


def _members(archive: bytes, folder: str) -> Iterator[tuple[PurePosixPath, bytes]]:
    key = f"the archive of files{f' of {folder}' if folder else ''}"
    try:
        size = zstandard.frame_content_size(archive)
        if not 0 <= size <= MOST_BYTES:
            raise damaged(key, f"it states a size of {size} bytes", "decode")
        plain = zstandard.ZstdDecompressor().decompress(archive, max_output_size=size, allow_extra_data=False)
        with tarfile.open(fileobj=io.BytesIO(plain), mode="r:") as tar:
            for info in tar:
                name = PurePosixPath(info.name)
                file = tar.extractfile(info) if info.isreg() else None
                if file is None or name.is_absolute() or ".." in name.parts or not name.parts or "\0" in info.name:
                    raise damaged(key, f"{info.name!r} in it is no file that may be written", "decode")
                yield name, file.read()
    except (zstandard.ZstdError, tarfile.TarError, ValueError, OSError, EOFError) as wrong:
        raise damaged(key, str(wrong), "decode") from None
