"""Segments: runs of messages as Parquet files (docs/format.md, *Segments*). The only module that imports pyarrow.

Equal messages give equal bytes, however they were cut into batches: row groups are cut by the messages alone, and
nothing of the run is written.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from jetkeep.codecs.batch import BATCH_BYTES, BATCH_ROWS, FIXED_BYTES, MessageBatch
from jetkeep.codecs.fingerprint import Fingerprint
from jetkeep.errors import BadDataError

# Arrow's own pools keep what was freed: with segments of 32 MiB that is most of the process's memory.
pa.set_memory_pool(pa.system_memory_pool())

_METADATA = {b"jetkeep.format": b"1"}
_SCHEMA = pa.schema(
    [
        pa.field("seq", pa.uint64(), nullable=False),
        pa.field("ts", pa.timestamp("ns", "UTC"), nullable=False),
        pa.field("subject", pa.binary(), nullable=False),
        pa.field("headers", pa.binary()),
        pa.field("payload", pa.binary(), nullable=False),
    ]
)
_GROUP_BYTES, _GROUP_ROWS = BATCH_BYTES, BATCH_ROWS
#: What a row group may claim to unpack to: many times what writers make of the largest message.
_MAX_GROUP_BYTES = 1024 * 1024 * 1024
#: Parquet's writer fills a page by so many values at a time: large payloads must come a few at a time.
_VALUES_AT_ONCE, _BYTES_AT_ONCE = 1024, 1024 * 1024

_EVERYTHING = (0, 2**64 - 1)

_SAMPLES, _SAMPLE_BYTES = 8, 16 * 1024
_FASTER_LEVEL = -3


@dataclass(frozen=True, slots=True)
class SegmentBytes:
    """A finished segment: the file's bytes, and what a reference to it says (times in ns: the least and the greatest)."""

    data: memoryview
    first_seq: int
    last_seq: int
    count: int
    first_ts: int
    last_ts: int
    raw_bytes: int
    fingerprint: str


class SegmentWriter:
    """Batches in, one segment's bytes out. The heavy work releases the GIL: run `add` and `finish` in a thread."""

    def __init__(self) -> None:
        self._group: list[MessageBatch] = []
        self._group_bytes = self._group_rows = 0
        self._out = pa.BufferOutputStream()
        self._writer: pq.ParquetWriter | None = None
        self._fingerprint = Fingerprint()
        self._raw_bytes = 0
        self._first_seq = self._last_seq = 0
        self._times: list[int] = []

    @property
    def raw_bytes(self) -> int:
        """Raw bytes (docs/format.md) of what was added; 0 as long as nothing was."""
        return self._raw_bytes

    def add(self, batch: MessageBatch) -> None:
        """Add the next rows, whose sequences are above all before."""
        if not batch.count:
            return
        assert batch.first_seq > self._last_seq, "sequences must rise"
        self._first_seq = self._first_seq or batch.first_seq
        self._last_seq = batch.last_seq
        self._raw_bytes += batch.raw_bytes
        self._fingerprint.update(batch)
        low = 0
        while low < batch.count:
            high = self._group_end(batch, low)
            part = batch.slice(low, high)
            self._group.append(part)
            self._group_bytes += part.raw_bytes
            self._group_rows += part.count
            if self._group_bytes >= _GROUP_BYTES or self._group_rows >= _GROUP_ROWS:
                self._write_group()
            low = high

    def finish(self) -> SegmentBytes:
        """The segment of all rows that were added, at least one; the writer is used up."""
        assert self._raw_bytes, "a segment has rows"
        if self._group:
            self._write_group()
        assert self._writer is not None
        self._writer.add_key_value_metadata(_METADATA)
        self._writer.close()
        return SegmentBytes(
            memoryview(self._out.getvalue()).cast("B"),
            self._first_seq,
            self._last_seq,
            self._fingerprint.count,
            min(self._times),
            max(self._times),
            self._raw_bytes,
            self._fingerprint.hex(),
        )

    def _group_end(self, batch: MessageBatch, low: int) -> int:
        """Where the row group that is being filled ends, or the batch: after the message that fills it."""
        offsets = (batch.subject_offsets, batch.header_offsets, batch.payload_offsets)
        start = sum(one[low] for one in offsets)

        def raw(high: int) -> int:
            return sum(one[high] for one in offsets) - start + FIXED_BYTES * (high - low)

        most = min(batch.count, low + _GROUP_ROWS - self._group_rows)
        return bisect_left(range(most), _GROUP_BYTES - self._group_bytes, lo=low + 1, key=raw)

    def _write_group(self) -> None:
        table = pa.Table.from_batches([_to_arrow(one) for one in self._group], _SCHEMA).combine_chunks()
        self._group, self._group_bytes, self._group_rows = [], 0, 0
        times = pc.min_max(table["ts"].cast(pa.int64()))
        self._times += [times["min"].as_py(), times["max"].as_py()]
        if self._writer is None:
            self._writer = _parquet_writer(self._out, table["payload"].chunk(0))
        self._writer.write_table(table, row_group_size=table.num_rows)


def _parquet_writer(out: pa.BufferOutputStream, payloads: pa.BinaryArray) -> pq.ParquetWriter:
    """A writer whose settings are chosen by the payloads of the first row group."""
    names = _SCHEMA.names
    mean = max(1, _payload_bytes(payloads).size // len(payloads))
    payload_level = _payload_level(payloads)
    codecs, levels = dict.fromkeys(names, "zstd"), dict.fromkeys(names, 1)
    if payload_level is None:
        codecs["payload"] = "none"
        del levels["payload"]
    else:
        levels["payload"] = payload_level
    return pq.ParquetWriter(
        out,
        _SCHEMA,
        version="2.6",  # the first with nanoseconds
        store_schema=False,  # the columns say all; readers differ in what they make of Arrow's copy
        use_dictionary=["subject"],
        column_encoding={
            "seq": "DELTA_BINARY_PACKED",
            "ts": "DELTA_BINARY_PACKED",
            "headers": "PLAIN",
            "payload": "PLAIN",
        },
        compression=codecs,
        compression_level=levels,
        write_statistics=["seq", "ts", "subject"],
        write_batch_size=max(1, min(_VALUES_AT_ONCE, _BYTES_AT_ONCE // mean)),
    )


def _payload_level(payloads: pa.BinaryArray) -> int | None:
    """The zstd level for payloads like these, by trial on a sample; None when compressing them is no use.

    Level 1 is the best bargain for text. On data that shrinks to no less than half, a negative level gives up earlier:
    measured on 64 KiB payloads of which half are random, 1.4 times the speed for 10 % more bytes, as many as S2 makes.
    """
    data = _payload_bytes(payloads)
    if data.size <= _SAMPLES * _SAMPLE_BYTES:
        sample = data
    else:
        step = (data.size - _SAMPLE_BYTES) // (_SAMPLES - 1)
        sample = b"".join(memoryview(data)[at * step : at * step + _SAMPLE_BYTES] for at in range(_SAMPLES))
    size = max(1, len(sample))
    normal = pa.Codec("zstd", 1).compress(sample).size
    if size >= _SAMPLE_BYTES and normal > 0.97 * size:
        return None
    return _FASTER_LEVEL if normal > 0.5 * size else 1


def _payload_bytes(payloads: pa.BinaryArray) -> pa.Buffer:
    _, offsets, data = payloads.buffers()
    bounds = memoryview(offsets).cast("B").cast("i")
    first, last = bounds[payloads.offset], bounds[payloads.offset + len(payloads)]
    return data.slice(first, last - first) if data is not None else pa.py_buffer(b"")


def _to_arrow(batch: MessageBatch) -> pa.RecordBatch:
    def column(offsets: memoryview, data: memoryview, mask: pa.Buffer | None = None) -> pa.Array:
        buffers = [mask, pa.py_buffer(offsets), pa.py_buffer(data)]
        return pa.Array.from_buffers(pa.binary(), batch.count, buffers)

    with_headers = pc.not_equal(pc.binary_length(column(batch.header_offsets, batch.headers)), 0)
    return pa.RecordBatch.from_arrays(
        [
            pa.Array.from_buffers(_SCHEMA.field("seq").type, batch.count, [None, pa.py_buffer(batch.seq)]),
            pa.Array.from_buffers(_SCHEMA.field("ts").type, batch.count, [None, pa.py_buffer(batch.ts)]),
            column(batch.subject_offsets, batch.subjects),
            column(batch.header_offsets, batch.headers, with_headers.buffers()[1]),
            column(batch.payload_offsets, batch.payloads),
        ],
        schema=_SCHEMA,
    )


class SegmentReader:
    """A segment's bytes in, batches out: one for each row group, in order, sharing the unpacked memory.

    Bytes that come from a store are compared with their digest before they come here; this finds what a writer did wrong.

    Raises (from creation and from iterating):
        BadDataError: the bytes are not a segment.
    """

    def __init__(self, data: bytes | bytearray | memoryview) -> None:
        with _refusing():
            self._file = pq.ParquetFile(pa.BufferReader(pa.py_buffer(data)), pre_buffer=False)
            metadata = self._file.metadata
            schema = self._file.schema_arrow
            groups = [metadata.row_group(at) for at in range(metadata.num_row_groups)]
            self._rows = [one.num_rows for one in groups]
            largest = max((one.total_byte_size for one in groups), default=0)
            self.count: int = metadata.num_rows
        if (metadata.metadata or {}).get(b"jetkeep.format") != b"1":
            raise _bad("it is not marked as jetkeep.format 1")
        if [(one.name, one.type) for one in schema] != [(one.name, one.type) for one in _SCHEMA]:
            raise _bad("its columns are not those of the format")
        if min(self._rows, default=0) < 0 or sum(self._rows) != self.count:
            raise _bad("its counts contradict each other")
        if largest > _MAX_GROUP_BYTES:
            raise _bad(f"a row group claims {largest} bytes")

    def __iter__(self) -> Iterator[MessageBatch]:
        return self._batches(*_EVERYTHING)

    def rows(self, first: int, last: int) -> Iterator[MessageBatch]:
        """The rows from sequence `first` to `last`; row groups outside are not unpacked."""
        for batch in self._batches(first, last):
            part = batch.slice(bisect_left(batch.seq, first), bisect_right(batch.seq, last))
            if part.count:
                yield part

    def _batches(self, first: int, last: int) -> Iterator[MessageBatch]:
        previous = -1
        for group, rows in enumerate(self._rows):
            if not rows:
                continue
            with _refusing():
                if (first, last) != _EVERYTHING and not self._holds(group, first, last):
                    continue
                batch = _from_arrow(self._file.read_row_group(group, use_threads=False).combine_chunks())
            if batch.count != rows or batch.first_seq <= previous:
                raise _bad("its row groups are not in order of sequence, or not of the length they claim")
            previous = batch.last_seq
            yield batch

    def _holds(self, group: int, first: int, last: int) -> bool:
        # Not from the statistics: to ask pyarrow for those of a file that contradicts itself ends the process.
        seq = self._file.read_row_group(group, columns=["seq"], use_threads=False)["seq"]
        return bool(seq[0].as_py() <= last and seq[-1].as_py() >= first)


def _from_arrow(table: pa.Table) -> MessageBatch:
    columns = [one.chunk(0) for one in table.columns]
    seq, ts, subjects, headers, payloads = columns
    if any(one.null_count for one in (seq, ts, subjects, payloads)):
        raise _bad("a value is missing that every message has")
    if not pc.all(pc.less(seq[:-1], seq[1:])).as_py() and len(seq) > 1:
        raise _bad("its sequences do not rise")
    if headers.null_count:
        headers = headers.fill_null(b"")
    binary = [part for one in (subjects, headers, payloads) for part in _binary(one)]
    return MessageBatch(len(seq), _words(seq, "Q"), _words(ts, "q"), *binary)


def _words(column: pa.Array, kind: Literal["Q", "q"]) -> memoryview:
    view = memoryview(column.buffers()[1]).cast("B")
    return view[8 * column.offset : 8 * (column.offset + len(column))].cast(kind)


def _binary(column: pa.Array) -> tuple[memoryview, memoryview]:
    column.validate()
    _, offsets, data = column.buffers()
    view = memoryview(offsets).cast("B")[4 * column.offset : 4 * (column.offset + len(column) + 1)]
    return view.cast("i"), memoryview(data).cast("B") if data is not None else memoryview(b"")


@contextmanager
def _refusing() -> Iterator[None]:
    """Whatever Arrow finds wrong, and wherever it finds it, is one thing to whoever reads: bad bytes."""
    try:
        yield
    except (pa.ArrowException, OSError, ValueError, TypeError, LookupError, OverflowError, MemoryError) as wrong:
        raise _bad(f"it cannot be read as Parquet: {str(wrong)[:200]}") from wrong


def _bad(why: str) -> BadDataError:
    return BadDataError(
        f"segment: {why}",
        code="data.segment",
        means="none of its messages can be used",
        hint="run `jetkeep verify` to see which backups name it; a copy of the repository may hold a good one",
    )
