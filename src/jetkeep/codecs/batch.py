"""A run of messages in columns: plain buffers that every codec reads and writes without copies.

No pyarrow and no numpy: whoever only lists, plans or compares does not pay for their import.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from jetkeep.model import Message

#: Fixed part of a message's raw bytes: sequence and time (docs/format.md).
FIXED_BYTES = 16
BATCH_BYTES = 4 * 1024 * 1024
BATCH_ROWS = 32 * 1024


@dataclass(frozen=True, slots=True)
class MessageBatch:
    """`count` messages in rising order of sequence.

    `seq` is uint64[count]; `ts` int64[count] in nanoseconds since the epoch; each `…_offsets` is int32[count + 1], rising,
    into the bytes beside it. A message whose headers have length 0 has none. All are C-contiguous views.
    """

    count: int
    seq: memoryview
    ts: memoryview
    subject_offsets: memoryview
    subjects: memoryview
    header_offsets: memoryview
    headers: memoryview
    payload_offsets: memoryview
    payloads: memoryview

    @classmethod
    def of(cls, messages: Iterable[Message]) -> MessageBatch:
        """A batch of these messages, which must be in rising order of sequence."""
        builder = BatchBuilder()
        for message in messages:
            builder.append(message)
        return builder.take()

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, at: int) -> Message:
        if not 0 <= at < self.count:
            raise IndexError(at)
        subject = slice(self.subject_offsets[at], self.subject_offsets[at + 1])
        headers = slice(self.header_offsets[at], self.header_offsets[at + 1])
        payload = slice(self.payload_offsets[at], self.payload_offsets[at + 1])
        return Message(
            self.seq[at],
            self.ts[at],
            bytes(self.subjects[subject]),
            bytes(self.headers[headers]),
            bytes(self.payloads[payload]),
        )

    def __iter__(self) -> Iterator[Message]:
        return (self[at] for at in range(self.count))

    @property
    def raw_bytes(self) -> int:
        """Raw bytes of the messages (docs/format.md): subjects, headers, payloads, and 16 each."""
        if not self.count:
            return 0
        offsets = (self.subject_offsets, self.header_offsets, self.payload_offsets)
        return sum(one[self.count] - one[0] for one in offsets) + FIXED_BYTES * self.count

    @property
    def first_seq(self) -> int:
        """Sequence of the first message."""
        return int(self.seq[0])

    @property
    def last_seq(self) -> int:
        """Sequence of the last message."""
        return int(self.seq[self.count - 1])

    def ranges(self) -> list[tuple[int, int]]:
        """The sequences as rising, disjoint, not adjacent ranges (first, last)."""
        if not self.count:
            return []
        if self.last_seq - self.first_seq + 1 == self.count:
            return [(self.first_seq, self.last_seq)]
        found = []
        first = self.first_seq
        for before, after in pairwise(self.seq):
            if after != before + 1:
                found.append((first, before))
                first = after
        found.append((first, self.last_seq))
        return found

    def slice(self, low: int, high: int) -> MessageBatch:
        """Messages `low` to `high` (exclusive) by position, sharing the buffers."""
        return MessageBatch(
            high - low,
            self.seq[low:high],
            self.ts[low:high],
            self.subject_offsets[low : high + 1],
            self.subjects,
            self.header_offsets[low : high + 1],
            self.headers,
            self.payload_offsets[low : high + 1],
            self.payloads,
        )

    def select(self, positions: Sequence[int]) -> MessageBatch:
        """The messages at these rising positions, copied."""
        return MessageBatch.of(self[at] for at in positions)


class BatchBuilder:
    """Collects messages one by one; `full` says when to `take`."""

    def __init__(self, max_bytes: int = BATCH_BYTES, max_rows: int = BATCH_ROWS) -> None:
        self._max_bytes, self._max_rows = max_bytes, max_rows
        self._reset()

    def _reset(self) -> None:
        self._seq, self._ts = array("Q"), array("q")
        self._offsets = (array("i", [0]), array("i", [0]), array("i", [0]))
        self._bytes = (bytearray(), bytearray(), bytearray())

    @property
    def count(self) -> int:
        """Messages collected since the last `take`."""
        return len(self._seq)

    @property
    def full(self) -> bool:
        """Enough was collected for a batch."""
        return self.count >= self._max_rows or sum(map(len, self._bytes)) >= self._max_bytes

    def append(self, message: Message) -> None:
        """Add a message; its sequence must be above the last one."""
        assert not self._seq or message.seq > self._seq[-1], "sequences must rise"
        self._seq.append(message.seq)
        self._ts.append(message.ts)
        for offsets, data, value in zip(self._offsets, self._bytes, message[2:], strict=True):
            data.extend(value)
            offsets.append(len(data))

    def take(self) -> MessageBatch:
        """What was collected, as a batch; the builder is empty again."""
        views = [memoryview(part) for pair in zip(self._offsets, self._bytes, strict=True) for part in pair]
        batch = MessageBatch(self.count, memoryview(self._seq), memoryview(self._ts), *views)
        self._reset()
        return batch
