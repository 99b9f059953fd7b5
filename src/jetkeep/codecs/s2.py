"""The S2 stream format, which both snapshot forms travel in: frames with a checksum each, in and out, in bounded memory.

A chunk is a type byte, a length of 24 bits, and so many bytes: 0x00 holds a masked CRC32C and a block, 0x01 the CRC and
the bytes as they are, 0xff opens a stream. The CRC is of the unpacked bytes.
"""

from __future__ import annotations

from collections.abc import Iterator

import cramjam
import google_crc32c

from jetkeep.codecs.kernels import _kernels
from jetkeep.errors import BadDataError

#: Unpacked bytes of one chunk: what the format allows under each identifier. Servers send chunks of up to 1 MiB.
MAX_CHUNK = 4 * 1024 * 1024
_MAX_SNAPPY_CHUNK = 64 * 1024
#: A block never takes more than this beyond what it unpacks to: `32 + n + n / 6` is Snappy's own bound.
_MAX_CHUNK_DATA = 4 + 32 + MAX_CHUNK + MAX_CHUNK // 6
_ENCODED_CHUNK = 1024 * 1024
#: Padding and an index. The format lets a reader skip all of 0x80 to 0xfe, but one flipped bit makes 0x80 of a chunk with data.
_SKIPPED = (0xFE, 0x99)
_S2_ID, _SNAPPY_ID = b"\xff\x06\x00\x00S2sTwO", b"\xff\x06\x00\x00sNaPpY"


class S2Decoder:
    """Frames in, in pieces of any size; the bytes of each complete chunk out, checked.

    Holds at most one chunk that is not complete (under 5 MiB), and refuses to unpack more than 4 MiB from one.
    """

    def __init__(self) -> None:
        self._pending = bytearray()
        self._needed = 0
        self._skip = 0
        self._largest = 0

    def feed(self, received: bytes | bytearray | memoryview) -> Iterator[bytes]:
        """The unpacked bytes of every chunk that is complete now, one by one; iterate to the end.

        Raises:
            BadDataError: a chunk is not what the format allows, or its checksum is wrong.
        """
        held, self._pending = self._pending, bytearray()
        if held:
            held += received
        data = memoryview(held or received)
        at = 0
        while len(data) - at >= self._needed:
            if self._skip:
                step = min(self._skip, len(data) - at)
                self._skip -= step
                at += step
            if len(data) - at < 4:
                break
            kind, size = self._head(data, at)
            if kind in _SKIPPED:
                self._skip = size
            elif len(data) - at >= size:
                if unpacked := self._unpack(data[at : at + size]):
                    yield unpacked
                at += size
                self._needed = 0
            else:
                self._needed = size
        self._pending += data[at:]

    def close(self) -> None:
        """The end of the frames.

        Raises:
            BadDataError: a chunk is cut off, or there was no stream at all.
        """
        if self._pending or self._skip:
            raise _bad("the last chunk is cut off")
        if not self._largest:
            raise _bad("there is no stream identifier")

    def _head(self, data: memoryview, at: int) -> tuple[int, int]:
        """Type and whole size of the chunk at `at`, compared with what is allowed."""
        kind, size = data[at], int.from_bytes(data[at + 1 : at + 4], "little")
        if not self._largest and kind != 0xFF:
            raise _bad("it does not begin with a stream identifier")
        if kind == 0xFF and size != 6:
            raise _bad(f"a stream identifier of {size} bytes")
        if 2 <= kind < 0xFF and kind not in _SKIPPED:
            raise _bad(f"chunk type 0x{kind:02x} is unknown")
        if kind < 2 and not 4 <= size <= _MAX_CHUNK_DATA:
            raise _bad(f"a chunk of {size} bytes")
        return kind, 4 + size

    def _unpack(self, chunk: memoryview) -> bytes:
        kind = chunk[0]
        if kind == 0xFF:
            self._largest = {_S2_ID: MAX_CHUNK, _SNAPPY_ID: _MAX_SNAPPY_CHUNK}.get(bytes(chunk), 0)
            if not self._largest:
                raise _bad(f"stream identifier {bytes(chunk[4:])!r}")
            return b""
        unpacked = self._block(chunk[8:]) if kind == 0 else bytes(chunk[8:])
        if len(unpacked) > self._largest:
            raise _bad(f"a chunk that holds {len(unpacked)} bytes")
        if _masked_crc(unpacked) != int.from_bytes(chunk[4:8], "little"):
            raise _bad("a chunk's checksum is wrong")
        return unpacked

    def _block(self, block: memoryview) -> bytes:
        size = at = 0
        for shift in range(0, 35, 7):
            if at == len(block):
                raise _bad("a block is cut off")
            size |= (block[at] & 127) << shift
            at += 1
            if block[at - 1] < 128:
                break
        # Before anything of that size is allocated.
        if size > self._largest:
            raise _bad(f"a block that claims {size} bytes")
        unpacked: bytes | None = _kernels.s2_decode(block, at, len(block), size)
        if unpacked is None:
            raise _bad("a block is corrupt")
        return unpacked


class S2Encoder:
    """Bytes in, frames out that servers of every version take: stream identifier `S2sTwO`, chunks of up to 1 MiB.

    Blocks are plain Snappy. While `compress` is false every chunk is stored as it is: cheaper where the server is near.
    """

    def __init__(self, *, compress: bool = True) -> None:
        self.compress = compress
        self._begun = False

    def encode(self, data: bytes | bytearray | memoryview) -> bytes:
        """The frames of these bytes; every call ends its last chunk."""
        out = [] if self._begun else [_S2_ID]
        self._begun = True
        view = memoryview(data)
        for at in range(0, len(view), _ENCODED_CHUNK):
            out += self._chunk(bytes(view[at : at + _ENCODED_CHUNK]))
        return b"".join(out)

    def _chunk(self, data: bytes) -> tuple[bytes, bytes, bytes]:
        crc = _masked_crc(data).to_bytes(4, "little")
        if self.compress:
            block = bytes(cramjam.snappy.compress_raw(data))
            if len(block) < len(data):
                return b"\x00" + (len(block) + 4).to_bytes(3, "little"), crc, block
        return b"\x01" + (len(data) + 4).to_bytes(3, "little"), crc, data


def _masked_crc(data: bytes) -> int:
    crc: int = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _bad(why: str) -> BadDataError:
    return BadDataError(
        f"S2 stream: {why}",
        code="data.s2",
        means="what follows in it cannot be read, and nothing of it is to be trusted",
        hint="take the snapshot again; if these are a file's bytes, the file is damaged",
    )
