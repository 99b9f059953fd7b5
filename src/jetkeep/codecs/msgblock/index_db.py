"""`msgs/index.db`: what the server knows about its blocks and the blocks themselves do not tell.

Read as a stream, because its table of subjects grows with the stream: that is stepped over, not kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from jetkeep.codecs.msgblock.highwayhash import HighwayHash64, keyed_state
from jetkeep.codecs.msgblock.server_set import read_server_set
from jetkeep.codecs.msgblock.varint import read_uvarint, read_varint
from jetkeep.codecs.sequences import SequenceSet
from jetkeep.errors import BadDataError

_MAGIC = 11
_VERSIONS = (1, 2, 3, 4)  # servers 2.10, 2.11, 2.12, 2.14
_TRAILER = 8
_MAX_SUBJECT = 65535


@dataclass(frozen=True, slots=True)
class IndexedBlock:
    """One block as the index has it: what is below `first_seq` or in `deleted` is not live."""

    number: int
    first_seq: int
    last_seq: int
    deleted: SequenceSet

    @property
    def messages(self) -> int:
        """How many messages are live in the block."""
        return max(0, self.last_seq - self.first_seq + 1 - self.deleted.count())


class IndexReader:
    """Bytes of an index.db in, blocks out; holds one entry at a time.

    Nothing it gives is to be trusted before `close` has returned: only then the hash has been compared.
    """

    def __init__(self, stream: str, size: int) -> None:
        self._stream = stream
        self._body_left = size - _TRAILER
        self._trailer = b""
        self._hash = HighwayHash64(keyed_state(stream))
        self._held = bytearray()
        self._at = 0
        self._step: Callable[[], Iterator[IndexedBlock]] = self._head
        self._left = 0  # subjects, then blocks, that are still to come
        self._done = False
        self._version = 0

    def feed(self, data: memoryview) -> Iterator[IndexedBlock]:
        """Take bytes in; raises BadDataError where they are no index."""
        body, rest = data[: max(0, self._body_left)], data[max(0, self._body_left) :]
        self._body_left -= len(body)
        self._trailer += bytes(rest)
        self._hash.update(body)
        self._held += body
        step = None
        try:
            while step != self._step and not self._done:
                step = self._step
                yield from step()
        except IndexError:
            pass  # an entry that is not complete yet; what was read of it is read again
        except ValueError as error:
            raise self._bad(str(error)) from error
        del self._held[: self._at]
        self._at = 0
        if self._done and self._held:
            raise self._bad("it goes on behind its end")

    def close(self) -> None:
        """Raises BadDataError unless all was there and the hash is right."""
        if not self._done:
            raise self._bad("it is cut off")
        if self._trailer != self._hash.digest():
            raise self._bad("its hash is wrong")

    def _head(self) -> Iterator[IndexedBlock]:
        magic, self._version, at = self._held[self._at], self._held[self._at + 1], self._at + 2
        if magic != _MAGIC or self._version not in _VERSIONS:
            raise ValueError(f"it begins with {magic}, {self._version}, which no known server writes")
        for read in (read_uvarint, read_uvarint, read_uvarint, read_varint, read_uvarint, read_varint):
            _, at = read(self._held, at)  # messages, bytes, first and last sequence with their times
        self._left, self._at = read_uvarint(self._held, at)
        self._step = self._subjects
        yield from ()

    def _subjects(self) -> Iterator[IndexedBlock]:
        held = self._held
        while self._left:
            length, at = read_uvarint(held, self._at)
            if length > _MAX_SUBJECT:  # never wait for what no subject can be
                raise ValueError(f"a subject claims {length} bytes")
            if length:
                total, at = read_uvarint(held, at + length)
                _, at = read_uvarint(held, at)
                if total > 1 or self._version >= 4:
                    _, at = read_uvarint(held, at)
            self._at = at
            self._left -= 1
        self._left, self._at = read_uvarint(held, self._at)
        self._step = self._blocks
        yield from ()

    def _blocks(self) -> Iterator[IndexedBlock]:
        while self._left:
            number, at = read_uvarint(self._held, self._at)
            _, at = read_uvarint(self._held, at)  # bytes
            first_seq, at = read_uvarint(self._held, at)
            _, at = read_varint(self._held, at)  # time of the first message
            last_seq, at = read_uvarint(self._held, at)
            _, at = read_varint(self._held, at)  # and of the last
            count, at = read_uvarint(self._held, at)
            for _ in range(min(self._version - 1, 2)):  # counts of per-message TTLs (2) and schedules (3)
                _, at = read_uvarint(self._held, at)
            deleted = SequenceSet()
            if count:
                deleted, at = read_server_set(self._held, at)
            self._at = at
            self._left -= 1
            yield IndexedBlock(number, first_seq, last_seq, deleted)
        self._step = self._tail

    def _tail(self) -> Iterator[IndexedBlock]:
        _, at = read_uvarint(self._held, self._at)  # number of the last block
        _ = self._held[at + 7]  # and the hash of its last record
        self._at = at + 8
        self._done = True
        yield from ()

    def _bad(self, why: str) -> BadDataError:
        return BadDataError(
            f"index.db of the snapshot of {self._stream} cannot be used: {why}",
            code="data.snapshot-index",
            means="which messages the limits have deleted is not known; nothing of this snapshot was used",
            hint="take the snapshot again; for a stored one, look for another copy",
        )
