"""The subset of PAX tar that servers write, streaming in both directions, without files.

Reading accepts regular files and PAX headers that give a path or a time, nothing else: no links, no devices, no GNU
or global headers. Sizes above 8 GiB do not fit a header and are refused.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from jetkeep.errors import BadDataError

BLOCK = 512
_MAX_PAX = 64 * 1024
#: Writers fill a tar up to a whole record with zeros; gigabytes of them, which pack into nothing, are an attack.
_MAX_ZERO_BLOCKS = 8192


def bad_tar(what: str) -> BadDataError:
    """The error of a tar that no server writes."""
    return BadDataError(
        f"the snapshot's tar {what}",
        code="data.snapshot-tar",
        means="this snapshot is damaged or is none; nothing of it can be trusted",
        hint="take the snapshot again; for a stored one, look for another copy",
    )


@dataclass(frozen=True, slots=True)
class Member:
    """A file in the tar begins."""

    name: str
    size: int


class Mark(Enum):
    """What `TarReader.feed` yields between the data: a member is complete."""

    MEMBER_END = 1


class TarReader:
    """Bytes of a tar in; for each member a `Member`, its data in pieces, and `Mark.MEMBER_END` out.

    Holds at most one header, or one PAX header of up to 64 KiB; pieces are views of what was fed.
    """

    def __init__(self) -> None:
        self._held = bytearray()  # an incomplete header, or a PAX header's records
        self._left = 0  # bytes of the current file's data that are still to come
        self._padding = 0
        self._pax_size = -1  # size of the PAX header that is being read
        self._path: str | None = None  # the next member's name by a PAX header
        self._zero_blocks = 0
        self._in_member = False

    @property
    def ended(self) -> bool:
        """Whether the two blocks of zeros were seen that end a tar."""
        return self._zero_blocks >= 2

    def feed(self, data: bytes | bytearray | memoryview) -> Iterator[Member | memoryview | Mark]:
        """Take bytes in; raises BadDataError where they cannot be a server's tar."""
        view = memoryview(data)
        while view:
            if self._left:
                piece, view = view[: self._left], view[self._left :]
                self._left -= len(piece)
                if self._in_member:
                    yield piece
                else:
                    self._held += piece
            elif self._padding:
                skipped = min(self._padding, len(view))
                view = view[skipped:]
                self._padding -= skipped
            else:
                need = BLOCK - len(self._held)
                self._held += view[:need]
                view = view[need:]
                if len(self._held) == BLOCK:
                    header, self._held = bytes(self._held), bytearray()
                    yield from self._header(header)
            if not self._left:
                yield from self._data_end()

    def close(self) -> None:
        """Raises BadDataError unless the end of the tar was seen."""
        if not self.ended:
            raise bad_tar("is cut off: its end is missing")

    def _header(self, header: bytes) -> Iterator[Member]:
        if not header.strip(b"\0"):
            self._zero_blocks += 1
            if self._zero_blocks > _MAX_ZERO_BLOCKS:
                raise bad_tar("goes on with zeros behind its end")
            return
        if self._zero_blocks:
            raise bad_tar("goes on behind its end")
        try:
            info = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
        except tarfile.HeaderError as error:
            raise bad_tar(f"has a header that is none ({error})") from error
        if info.size < 0:
            raise bad_tar(f"has a header with the size {info.size}")
        self._left, self._padding = info.size, -info.size % BLOCK
        if info.type == tarfile.XHDTYPE:
            if self._path is not None or info.size > _MAX_PAX:
                raise bad_tar(f"has a PAX header of {info.size} bytes or two in a row")
            self._pax_size = info.size
            self._path = ""
        elif info.type in (tarfile.REGTYPE, tarfile.AREGTYPE):
            name, self._path = self._path or info.name, None
            self._in_member = True
            yield Member(name, info.size)
        else:
            raise bad_tar(f"holds {info.name!r} of type {info.type!r}, which is no regular file")

    def _data_end(self) -> Iterator[Mark]:
        if self._in_member:
            self._in_member = False
            yield Mark.MEMBER_END
        elif self._pax_size >= 0 and len(self._held) == self._pax_size:
            self._path = _pax_path(bytes(self._held))
            self._held.clear()
            self._pax_size = -1


def _pax_path(records: bytes) -> str:
    """The path that PAX records give, or an empty text; raises on records that would change how data is read."""
    path = ""
    while records:
        length_text, space, _ = records.partition(b" ")
        if not space or not length_text.isdigit() or len(length_text) > 6:
            raise bad_tar("has a PAX header that is none")
        length = int(length_text)
        key, equals, value = records[len(length_text) + 1 : length].partition(b"=")
        if not equals or length > len(records) or value[-1:] != b"\n":
            raise bad_tar("has a PAX header that is none")
        if key == b"path":
            path = value[:-1].decode("utf-8", "surrogateescape")
        elif key not in (b"mtime", b"atime", b"ctime"):
            raise bad_tar(f"has a PAX header with {key!r}")
        records = records[length:]
    return path


def member_header(name: str, size: int, mtime: int) -> bytes:
    """The header of a regular file, with a PAX header in front where the name needs one; `mtime` in seconds."""
    info = tarfile.TarInfo(name)
    info.size, info.mtime, info.mode = size, mtime, 0o600
    info.uname = info.gname = "nats"
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def padding(size: int) -> bytes:
    """The zeros behind `size` bytes of data."""
    return bytes(-size % BLOCK)


#: What ends a tar.
END = bytes(2 * BLOCK)
