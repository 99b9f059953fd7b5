"""Segments: a run of messages as one Parquet file in memory, and back (docs/format.md, *Segments*)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from jetkeep.codecs.batch import BATCH_BYTES, BATCH_ROWS, MessageBatch
from jetkeep.codecs.fingerprint import Fingerprint
from jetkeep.errors import BadDataError

# The default pool keeps what it freed, which shows as resident memory; segments come and go in large pieces.
pa.set_memory_pool(pa.system_memory_pool())

SCHEMA = pa.schema(
    [
        pa.field("seq", pa.uint64(), nullable=False),
        pa.field("ts", pa.timestamp("ns", tz="UTC"), nullable=False),
        pa.field("subject", pa.binary(), nullable=False),
        pa.field("headers", pa.binary(), nullable=True),
        pa.field("payload", pa.binary(), nullable=False),
    ]
)
_METADATA = {"jetkeep.format": "1"}
LEVEL = 1
#: The part of the first payloads that is compressed on trial, and the ratio from which on payloads are stored plain.
TRIAL_BYTES, TRIAL_RATIO = 256 * 1024, 0.97


@dataclass(frozen=True, slots=True)
class SegmentBytes:
    """A finished segment: its bytes and what a manifest says of it. Times in nanoseconds since the epoch."""

    data: memoryview
    first_seq: int
    last_seq: int
    count: int
    first_ts: int
    last_ts: int
    raw_bytes: int
    fingerprint: str


class SegmentWriter:
    """Collects batches in rising order and encodes row groups as they fill; `finish` gives the file.

    Memory: one row group of raw bytes and the encoded file so far. Equal rows in equal batches give equal bytes.
    """

    def __init__(self) -> None:
        self._out = pa.BufferOutputStream()
        self._writer: Any = None
        self._pending: list[MessageBatch] = []
        self._pending_bytes = self._pending_rows = 0
        self._fingerprint = Fingerprint()
        self._first: int | None = None
        self._last = 0
        self._first_ts, self._last_ts = 2**63 - 1, -(2**63)
        self.raw_bytes = 0

    def add(self, batch: MessageBatch) -> None:
        """Add rows whose sequences are above all before."""
        if not len(batch):
            return
        self._first = batch.first_seq if self._first is None else self._first
        self._last = batch.last_seq
        self._fingerprint.update(batch)
        self.raw_bytes += batch.raw_bytes
        if self._pending and self._pending_bytes + batch.raw_bytes > BATCH_BYTES + BATCH_BYTES // 2:
            self._write()
        self._pending.append(batch)
        self._pending_bytes += batch.raw_bytes
        self._pending_rows += len(batch)
        if self._pending_bytes >= BATCH_BYTES or self._pending_rows >= BATCH_ROWS:
            self._write()

    def finish(self) -> SegmentBytes:
        """The file; the writer must not be used again. There must be at least one row."""
        assert self._first is not None, "a segment has rows"
        if self._pending:
            self._write()
        self._writer.add_key_value_metadata(_METADATA)
        self._writer.close()
        return SegmentBytes(
            memoryview(self._out.getvalue()),
            self._first,
            self._last,
            self._fingerprint.count,
            self._first_ts,
            self._last_ts,
            self.raw_bytes,
            self._fingerprint.hex(),
        )

    def _write(self) -> None:
        table = pa.Table.from_batches([_to_arrow(batch) for batch in self._pending], SCHEMA)
        times = pc.min_max(table["ts"].cast(pa.int64())).as_py()
        self._first_ts = min(self._first_ts, times["min"])
        self._last_ts = max(self._last_ts, times["max"])
        if self._writer is None:
            self._writer = self._open(table)
        self._writer.write_table(table, row_group_size=len(table))
        self._pending, self._pending_bytes, self._pending_rows = [], 0, 0

    def _open(self, table: Any) -> Any:
        sizes = sum(chunk.nbytes for chunk in table["payload"].chunks)
        mean = max(1, sizes // max(1, len(table)))
        codecs = dict.fromkeys(SCHEMA.names, "zstd") | {"payload": _payload_codec(table)}
        return pq.ParquetWriter(
            self._out,
            SCHEMA,
            version="2.6",
            use_dictionary=["subject"],
            column_encoding={"seq": "DELTA_BINARY_PACKED", "ts": "DELTA_BINARY_PACKED"},
            compression=codecs,
            compression_level={name: LEVEL for name, codec in codecs.items() if codec == "zstd"},
            write_statistics=["seq", "ts", "subject"],
            # Pages are cut after whole write batches: large payloads need small ones, or a page exceeds 2 GiB.
            write_batch_size=max(1, min(1024, 1024 * 1024 // mean)),
            store_schema=False,
        )


def _payload_codec(table: Any) -> str:
    chunk = table["payload"].chunk(0)
    offsets = memoryview(chunk.buffers()[1]).cast("i")
    first, last = offsets[chunk.offset], offsets[chunk.offset + len(chunk)]
    sample = chunk.buffers()[2].slice(first, min(last - first, TRIAL_BYTES)) if last > first else None
    if sample is None:
        return "zstd"
    packed = pa.Codec("zstd", compression_level=LEVEL).compress(sample)
    return "zstd" if len(packed) < TRIAL_RATIO * len(sample) else "none"


def _to_arrow(batch: MessageBatch) -> Any:
    rows = batch.count
    return pa.RecordBatch.from_arrays(
        [
            pa.Array.from_buffers(pa.uint64(), rows, [None, pa.py_buffer(batch.seq)]),
            pa.Array.from_buffers(pa.timestamp("ns", tz="UTC"), rows, [None, pa.py_buffer(batch.ts)]),
            _binary(rows, batch.subject_offsets, batch.subjects),
            _headers(batch),
            _binary(rows, batch.payload_offsets, batch.payloads),
        ],
        schema=SCHEMA,
    )


def _binary(rows: int, offsets: memoryview, data: memoryview, validity: Any = None) -> Any:
    return pa.Array.from_buffers(pa.binary(), rows, [validity, pa.py_buffer(offsets), pa.py_buffer(data)])


def _headers(batch: MessageBatch) -> Any:
    rows = batch.count
    if batch.header_offsets[rows] == batch.header_offsets[0]:
        return pa.nulls(rows, pa.binary())
    plain = _binary(rows, batch.header_offsets, batch.headers)
    present = pc.greater(pc.binary_length(plain), 0)
    return _binary(rows, batch.header_offsets, batch.headers, present.buffers()[1])


class SegmentReader:
    """Iterates the rows of a segment, one batch a row group. The bytes must have been proven by their digest.

    Raises (from the constructor and the iteration):
        BadDataError: it is no segment of format 1, or its rows are not in order.
    """

    def __init__(self, data: bytes | memoryview) -> None:
        try:
            self._file = pq.ParquetFile(pa.BufferReader(pa.py_buffer(data)))
            schema, metadata = self._file.schema_arrow, self._file.metadata.metadata or {}
        except (pa.ArrowException, OSError, ValueError) as wrong:
            raise _bad(str(wrong)) from None
        if not schema.equals(SCHEMA):
            raise _bad(f"its columns are {schema.names}, or of other types")
        if metadata.get(b"jetkeep.format") != b"1":
            raise _bad("it does not say that it is of format 1")
        self._last = -1

    def __iter__(self) -> Iterator[MessageBatch]:
        for at in range(self._file.num_row_groups):
            yield self._batch(at)

    def within(self, first: int, last: int) -> Iterator[MessageBatch]:
        """Only the row groups that can hold sequences from `first` to `last`, by their statistics."""
        for at in range(self._file.num_row_groups):
            statistics = self._file.metadata.row_group(at).column(0).statistics
            if statistics is None or (statistics.max >= first and statistics.min <= last):
                yield self._batch(at)

    def _batch(self, at: int) -> MessageBatch:
        try:
            table = self._file.read_row_group(at, use_threads=False).combine_chunks()
        except (pa.ArrowException, OSError, ValueError) as wrong:
            raise _bad(str(wrong)) from None
        if not len(table):
            raise _bad("a row group is empty")
        columns = [table[name].chunk(0) for name in SCHEMA.names]
        seq = columns[0]
        rising = len(seq) == 1 or pc.all(pc.less(seq[:-1], seq[1:])).as_py()
        if any(columns[i].null_count for i in (0, 1, 2, 4)) or not rising or seq[0].as_py() <= self._last:
            raise _bad("its rows are not in rising order of sequence, or a value is absent")
        self._last = seq[-1].as_py()
        rows = len(seq)
        parts = [view for i in (2, 3, 4) for view in _views(columns[i], rows)]
        return MessageBatch(rows, _fixed(seq, "Q"), _fixed(columns[1], "q"), *parts)


def _fixed(column: Any, code: str) -> memoryview:
    view = memoryview(column.buffers()[1]).cast("B").cast(code)  # type: ignore[call-overload]
    return view[column.offset : column.offset + len(column)]  # type: ignore[no-any-return]


def _views(column: Any, rows: int) -> tuple[memoryview, memoryview]:
    _, offsets, data = column.buffers()
    view = memoryview(offsets).cast("B").cast("i")[column.offset : column.offset + rows + 1]
    return view, memoryview(data).cast("B") if data is not None else memoryview(b"")


def _bad(why: str) -> BadDataError:
    return BadDataError(
        f"a segment cannot be read: {why}",
        code="data.damaged",
        means="what depends on this object cannot be read; other backups are not affected",
        hint="run `jetkeep verify` to see which backups it touches, and restore from another one",
    )
