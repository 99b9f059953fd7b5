"""A message block: records with hashes in, batches out; and batches in, records with hashes out."""

from __future__ import annotations

from array import array
from collections.abc import Iterator

from jetkeep.codecs.batch import BATCH_BYTES, BATCH_ROWS, MessageBatch
from jetkeep.codecs.kernels import _blocks
from jetkeep.codecs.msgblock.highwayhash import State, digest, keyed_state
from jetkeep.errors import BadDataError, CannotRestoreError

#: Room for the longest subject with sequence and time, filled up to whole packets of the hash.
_SCRATCH = 65584
_WRONG = (
    "",
    "is cut off",
    "has lengths that contradict each other",
    "has a hash that is wrong",
    "has a sequence that is not above the ones before it",
)
RECORD_BYTES = 30
TOMBSTONE = 1 << 62
#: Servers take a longer record for damaged when they rebuild a block's index, and lose it and what is behind it.
MAX_RECORD = 32 * 1024 * 1024


def block_state(stream: str, number: int) -> State:
    """The initial hash state of the records in block `number` of `stream`."""
    return keyed_state(f"{stream}-{number}")


class BlockReader:
    """Reads one block's bytes.

    Iterating gives its rows up to sequence `cut` in batches, checks every record and raises BadDataError at the
    first one that is wrong. `tombstones` is complete when the iteration is.
    """

    def __init__(self, stream: str, number: int, data: bytearray, *, cut: int, previous: int) -> None:
        self._name = f"block {number} of the snapshot of {stream}"
        self._state = block_state(stream, number)
        self._data = memoryview(data)
        self._cut = cut
        self._previous = previous
        self.tombstones = array("Q")
        self.beyond_cut = False

    def __iter__(self) -> Iterator[MessageBatch]:
        scratch = memoryview(bytearray(_SCRATCH))
        found = memoryview(array("q", bytes(8 * 7)))
        at = 0
        while at < len(self._data):
            end = _blocks.scan(self._data, at, BATCH_ROWS, BATCH_BYTES, self._cut, found)
            wrong, rows, subjects, headers, payloads, tombstones, beyond = found
            self._check(wrong, end)
            self.beyond_cut |= beyond > 0
            batch = _empty_columns(rows, subjects, headers, payloads)
            dead = memoryview(array("Q", bytes(8 * tombstones)))
            stopped = _blocks.unpack(
                self._data, at, end, self._cut, self._previous, self._state, scratch, *_columns(batch), dead, found
            )
            self._check(found[0], stopped)
            self.tombstones.frombytes(dead.cast("B"))
            if rows:
                self._previous = batch.last_seq
                yield batch
            at = end

    def _check(self, wrong: int, at: int) -> None:
        if wrong:
            raise BadDataError(
                f"{self._name} has a record at byte {at} that {_WRONG[wrong]}",
                code="data.snapshot-record",
                means="messages of this stream are damaged; nothing of this snapshot was used",
                hint="take it again; if it fails at the same place, the server's own store is damaged there",
            )


def _empty_columns(rows: int, subjects: int, headers: int, payloads: int) -> MessageBatch:
    return MessageBatch(
        rows,
        memoryview(array("Q", bytes(8 * rows))),
        memoryview(array("q", bytes(8 * rows))),
        memoryview(array("i", bytes(4 * rows + 4))),
        memoryview(bytearray(subjects)),
        memoryview(array("i", bytes(4 * rows + 4))),
        memoryview(bytearray(headers)),
        memoryview(array("i", bytes(4 * rows + 4))),
        memoryview(bytearray(payloads)),
    )


def _columns(batch: MessageBatch) -> tuple[memoryview, ...]:
    return (
        batch.seq,
        batch.ts,
        batch.subject_offsets,
        batch.subjects,
        batch.header_offsets,
        batch.headers,
        batch.payload_offsets,
        batch.payloads,
    )


class BlockWriter:
    """Collects rows as records of one block after another, each of up to about `max_bytes`.

    A larger message makes a block of its own. `number` is that of the block that is being filled, from 1.
    """

    def __init__(self, stream: str, max_bytes: int) -> None:
        self._stream = stream
        self._scratch = memoryview(bytearray(_SCRATCH))
        self._room = self._data = memoryview(bytearray(max_bytes))
        self._used = self.number = 0
        self.take()

    def __len__(self) -> int:
        return self._used

    def add(self, batch: MessageBatch, low: int, high: int) -> int:
        """Append rows from `low` on as long as they fit, at most to `high`; returns the first that was not added.

        Raises:
            CannotRestoreError: a message is too large for servers to take it from a block.
        """
        room = len(self._room) - self._used
        end = low
        if _size(batch, low, high) <= room:
            end = high
        else:
            below, above = low, high  # rows to `below` fit, rows to `above` do not
            while above - below > 1:
                middle = (below + above) // 2
                below, above = (middle, above) if _size(batch, low, middle) <= room else (below, middle)
            end = below
        if end > low:
            self._used = self._pack(batch, low, end, self._room, self._used)
        elif not self._used:
            end = low + 1
            self._data = memoryview(bytearray(self._alone(batch, low)))
            self._used = self._pack(batch, low, end, self._data, 0)
        return end

    def take(self) -> memoryview:
        """The block's bytes, good until the next `add`, which begins the next block."""
        taken = self._data[: self._used]
        self.number += 1
        self._state = block_state(self._stream, self.number)
        self._data = self._room
        self._used = 0
        return taken

    def _pack(self, batch: MessageBatch, low: int, high: int, out: memoryview, at: int) -> int:
        end: int = _blocks.pack(*_columns(batch), low, high, self._state, self._scratch, out, at)
        assert end >= 0, f"row {-1 - end} cannot be a record: its subject is too long, or its offsets are wrong"
        return end

    def _alone(self, batch: MessageBatch, row: int) -> int:
        size = _size(batch, row, row + 1)
        if size > MAX_RECORD:
            raise CannotRestoreError(
                f"message {batch.seq[row]} of {self._stream} takes {size} bytes as a record",
                code="restore.loss-message-size",
                means="servers would drop it without a word: above 32 MiB they take a record for damaged",
                hint="no server from 2.11 on stores such a message; leave it out, `jetkeep cat` prints it",
            )
        return size


def _size(batch: MessageBatch, low: int, high: int) -> int:
    """An upper bound of the bytes of rows `low` to `high` as records."""
    offsets = (batch.subject_offsets, batch.header_offsets, batch.payload_offsets)
    headers = 4 * (high - low) if batch.header_offsets[high] > batch.header_offsets[low] else 0
    return RECORD_BYTES * (high - low) + headers + sum(int(one[high] - one[low]) for one in offsets)


def tombstone_block(stream: str, number: int, seq: int, ts: int) -> bytes:
    """A block of one record that says: `seq` was the last sequence, and is gone."""
    body = (seq | TOMBSTONE).to_bytes(8, "little") + ts.to_bytes(8, "little", signed=True)
    return RECORD_BYTES.to_bytes(4, "little") + body + bytes(2) + digest(block_state(stream, number), body)
