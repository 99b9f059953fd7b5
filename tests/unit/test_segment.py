from __future__ import annotations

import io
import random
import subprocess
import sys
from itertools import pairwise

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jetkeep.codecs.batch import MessageBatch
from jetkeep.codecs.fingerprint import Fingerprint
from jetkeep.codecs.segment import SegmentBytes, SegmentReader, SegmentWriter
from jetkeep.errors import BadDataError
from jetkeep.model import Message

TS = 1_795_439_700_123_456_789
MESSAGES = [
    Message(1, TS, b"a.b", b"", b"one"),
    Message(2, -5, b"a.c", b"NATS/1.0\r\nA: b\r\n\r\n", b""),
    Message(70_000, 0, b"\xff\xfe", b"", bytes(range(256)) * 4),
    Message(2**63 + 5, 2**63 - 1, b"z", b"", b"last"),
    Message(2**64 - 1, -(2**63), b"z", b"", b"very last"),
]


def segment(messages: list[Message], cut: int = 0) -> SegmentBytes:
    writer, batch = SegmentWriter(), MessageBatch.of(messages)
    for low in range(0, len(batch), cut or len(batch)):
        writer.add(batch.slice(low, min(len(batch), low + (cut or len(batch)))))
    return writer.finish()


def messages(data: bytes | memoryview) -> list[Message]:
    return [message for batch in SegmentReader(data) for message in batch]


def orders(count: int, size: int = 100, first: int = 1) -> list[Message]:
    text = bytes(range(97, 123)) * (size // 26 + 1)
    return [
        Message(seq, TS + seq * 1000, b"orders.%d" % (seq % 50), b"" if seq % 3 else b"NATS/1.0\r\n\r\n", text[:size])
        for seq in range(first, first + count)
    ]


def parquet(**columns: pa.Array) -> bytes:
    good = {
        "seq": pa.array([1, 2], pa.uint64()),
        "ts": pa.array([5, 6], pa.timestamp("ns", "UTC")),
        "subject": pa.array([b"a", b"b"], pa.binary()),
        "headers": pa.array([None, b"h"], pa.binary()),
        "payload": pa.array([b"x", b""], pa.binary()),
    }
    return written(pa.table({**good, **columns}))


def written(*tables: pa.Table) -> bytes:
    out = io.BytesIO()
    with pq.ParquetWriter(out, tables[0].schema, version="2.6", store_schema=False) as writer:
        for table in tables:
            writer.write_table(table)
        writer.add_key_value_metadata({"jetkeep.format": "1"})
    return out.getvalue()


def test_what_was_written_is_read() -> None:
    made = segment(MESSAGES)
    assert messages(made.data) == MESSAGES
    assert (made.first_seq, made.last_seq, made.count) == (1, 2**64 - 1, 5)
    assert (made.first_ts, made.last_ts) == (-(2**63), 2**63 - 1)
    assert made.raw_bytes == MessageBatch.of(MESSAGES).raw_bytes
    assert made.fingerprint == Fingerprint.of(MessageBatch.of(MESSAGES)).hex()


@pytest.mark.parametrize("headers", [b"", b"NATS/1.0\r\n\r\n"])
def test_all_or_no_message_has_headers(headers: bytes) -> None:
    one = [Message(seq, TS, b"s", headers, b"x") for seq in range(1, 4)]
    assert messages(segment(one).data) == one


@pytest.mark.parametrize("cut", [1, 777, 40_000])
def test_equal_messages_give_equal_bytes_however_they_are_cut(cut: int) -> None:
    # More than one row group by rows, and then by bytes.
    many = orders(33_000, 10) + orders(1000, 20_000, first=50_000)
    if cut == 1:
        many = many[:500] + orders(300, 30_000, first=50_000)
    whole, pieces = segment(many), segment(many, cut)
    assert pieces == whole


def test_row_groups_are_of_the_size_that_the_format_names() -> None:
    made = segment(orders(33_000, 10) + orders(1000, 20_000, first=50_000))
    metadata = pq.ParquetFile(pa.BufferReader(made.data)).metadata
    groups = [metadata.row_group(at) for at in range(metadata.num_row_groups)]
    assert groups[0].num_rows == 32_768
    assert all(4_000_000 < one.column(4).total_uncompressed_size < 4_250_000 for one in groups[1:-1])
    assert metadata.metadata == {b"jetkeep.format": b"1"}
    assert [groups[0].column(at).is_stats_set for at in range(5)] == [True, True, True, False, False]
    assert "DELTA_BINARY_PACKED" in groups[0].column(0).encodings
    assert groups[0].column(2).has_dictionary_page
    assert not groups[0].column(4).has_dictionary_page


def test_a_segment_can_be_queried_with_sql(tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("sql") / "one.parquet"
    path.write_bytes(segment(MESSAGES[:3]).data)
    found = duckdb.sql(
        f"select seq, epoch_ns(ts), subject, headers is null, octet_length(payload) from '{path}' order by seq"
    )
    assert found
    assert found.fetchall() == [
        (1, TS, b"a.b", True, 3),
        (2, -5, b"a.c", False, 0),
        (70_000, 0, b"\xff\xfe", True, 1024),
    ]


def test_rows_gives_a_range_and_unpacks_no_other_row_group(monkeypatch: pytest.MonkeyPatch) -> None:
    many = orders(700, 20_000)
    data = segment(many).data
    reader = SegmentReader(data)
    unpacked: list[int] = []
    read = pq.ParquetFile.read_row_group

    def counted(file: pq.ParquetFile, at: int, columns: list[str] | None = None, **how: bool) -> pa.Table:
        if columns != ["seq"]:
            unpacked.append(at)
        return read(file, at, columns, **how)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", counted)
    found = [message for batch in reader.rows(300, 305) for message in batch]
    assert found == many[299:305]
    assert unpacked == [1]
    assert list(reader.rows(1000, 2000)) == []


@pytest.mark.parametrize(("first", "last"), [(2**63, 2**64 - 2), (2**64 - 1, 2**64 - 1), (3, 69_999), (0, 2**64 - 1)])
def test_ranges_of_large_sequences(first: int, last: int) -> None:
    found = [message for batch in SegmentReader(segment(MESSAGES).data).rows(first, last) for message in batch]
    assert found == [message for message in MESSAGES if first <= message.seq <= last]


def test_payloads_that_do_not_shrink_are_stored_as_they_are() -> None:
    source = random.Random(5)
    noise = [Message(seq, TS, b"s", b"", source.randbytes(65_536)) for seq in range(1, 80)]
    made = segment(noise)
    group = pq.ParquetFile(pa.BufferReader(made.data)).metadata.row_group(0)
    assert [group.column(at).compression for at in (0, 4)] == ["ZSTD", "UNCOMPRESSED"]
    assert messages(made.data) == noise
    text = pq.ParquetFile(pa.BufferReader(segment(orders(100)).data)).metadata.row_group(0)
    assert text.column(4).compression == "ZSTD"


def test_large_messages_between_small_ones() -> None:
    many = [*orders(10), Message(11, TS, b"s", b"", bytes(20_000_000)), *orders(10, first=12)]
    assert messages(segment(many).data) == many


def test_anybodys_parquet_with_the_formats_columns_is_read() -> None:
    assert messages(parquet()) == [Message(1, 5, b"a", b"", b"x"), Message(2, 6, b"b", b"h", b"")]


@pytest.mark.parametrize(
    ("columns", "why"),
    [
        ({"seq": pa.array([2, 2], pa.uint64())}, "do not rise"),
        ({"seq": pa.array([2, 1], pa.uint64())}, "do not rise"),
        ({"seq": pa.array([2, None], pa.uint64())}, "missing"),
        ({"subject": pa.array([b"a", None], pa.binary())}, "missing"),
        ({"payload": pa.array([None, b"a"], pa.binary())}, "missing"),
        ({"ts": pa.array([None, 1], pa.timestamp("ns", "UTC"))}, "missing"),
        ({"seq": pa.array([1, 2], pa.int64())}, "columns"),
        ({"ts": pa.array([1, 2], pa.timestamp("us", "UTC"))}, "columns"),
        ({"ts": pa.array([1, 2], pa.timestamp("ns"))}, "columns"),
        ({"subject": pa.array(["a", "b"])}, "columns"),
        ({"more": pa.array([1, 2])}, "columns"),
    ],
)
def test_other_columns_are_refused(columns: dict[str, pa.Array], why: str) -> None:
    with pytest.raises(BadDataError, match=why):
        messages(parquet(**columns))


def test_a_file_without_the_mark_is_refused() -> None:
    out = io.BytesIO()
    pq.write_table(pa.table({"seq": pa.array([1], pa.uint64())}), out)
    with pytest.raises(BadDataError, match="not marked"):
        SegmentReader(out.getvalue())


def test_row_groups_out_of_order_are_refused() -> None:
    table = pq.read_table(pa.BufferReader(parquet()))
    with pytest.raises(BadDataError, match="order"):
        messages(written(table, table))


def test_every_truncation_is_refused() -> None:
    data = bytes(segment(MESSAGES).data)
    for size in range(len(data)):
        with pytest.raises(BadDataError):
            messages(data[:size])


FLIPS = """
import random, sys
from jetkeep.codecs.segment import SegmentReader
from jetkeep.errors import BadDataError
from tests.unit.test_segment import MESSAGES, orders, segment

data = bytes(segment(MESSAGES).data if sys.argv[1] == "few" else segment(orders(3000)).data)
bits = range(8 * len(data)) if sys.argv[1] == "few" else random.Random(6).sample(range(8 * len(data)), 4000)
for bit in bits:
    flipped = bytearray(data)
    flipped[bit // 8] ^= 1 << bit % 8
    try:
        for batch in SegmentReader(flipped):
            list(batch)
    except BadDataError:
        pass
"""


@pytest.mark.parametrize("which", ["few", pytest.param("many", marks=pytest.mark.slow)])
def test_no_flipped_bit_ends_the_process_or_gives_another_error(which: str) -> None:
    # A digest finds the flip before; this is what stands behind it. In a process of its own: it could crash.
    done = subprocess.run([sys.executable, "-c", FLIPS, which], check=False, timeout=100, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()[-2000:]


def test_batches_rise_within_and_between_row_groups() -> None:
    found = [seq for batch in SegmentReader(segment(orders(40_000, 10)).data) for seq in batch.seq]
    assert all(before < after for before, after in pairwise(found))
