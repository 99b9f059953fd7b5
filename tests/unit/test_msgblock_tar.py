from __future__ import annotations

import io
import tarfile
import tracemalloc

import pytest

from jetkeep.codecs.kernels import COMPILED, _blocks
from jetkeep.codecs.msgblock import TarDecoder
from jetkeep.codecs.msgblock.block import block_state, tombstone_block
from jetkeep.codecs.msgblock.highwayhash import keyed_digest
from jetkeep.codecs.msgblock.tar_stream import END, member_header, padding
from jetkeep.errors import BadDataError, CannotRestoreError
from jetkeep.model import ConsumerRecord, ConsumerState, Message, Pending, Position
from tests.msgblocks import FIRST_TIME, decode, encode, make_rows
from tests.unit.test_msgblock_index import index

META = b'{"name":"S","subjects":["s.>"],"Created":"2024-01-02T03:04:05.6Z"}'
HEAD = [("meta.inf", META), ("meta.sum", keyed_digest("S", META).hex().encode())]


def member(name: str, data: bytes) -> bytes:
    return member_header(name, len(data), 0) + data + padding(len(data))


def tar_of(*members: tuple[str, bytes]) -> bytes:
    return b"".join(member(name, data) for name, data in (*HEAD, *members)) + END


def record(number: int, seq: int, payload: bytes = b"pay", subject: bytes = b"s.1") -> bytes:
    """One record with its hash; `seq` may carry the erased and the tombstone bit."""
    body = seq.to_bytes(8, "little") + FIRST_TIME.to_bytes(8, "little") + subject + payload
    digest = _blocks.finish(block_state("S", number), memoryview(body), len(body))
    size = 30 + len(subject) + len(payload)
    fixed = size.to_bytes(4, "little") + body[:16] + len(subject).to_bytes(2, "little")
    return fixed + subject + payload + digest.to_bytes(8, "little")


def block(number: int, *sequences: int) -> tuple[str, bytes]:
    return f"msgs/{number}.blk", b"".join(record(number, seq) for seq in sequences)


def sequences(tar: bytes, last_seq: int = 1000) -> list[int]:
    return [row.seq for row in decode(tar, last_seq=last_seq).live]


compiled = pytest.mark.skipif(not COMPILED, reason="interpreted, this many bytes take minutes")
ERASED, TOMBSTONE = 1 << 63, 1 << 62
INDEX = ("msgs/index.db", index(4, [(1, 3, 40, {5, 6}), (2, 41, 99, set())]))


# What is live.


def test_below_the_first_sequence_and_in_the_deleted_set_is_not_live() -> None:
    tar = tar_of(block(1, 1, 2, 3, 4, 5, 7, 8, *range(9, 41)), block(2, 41, 42), INDEX)
    assert sequences(tar) == [3, 4, *range(7, 43)]


def test_a_tombstone_in_any_block_removes_a_row() -> None:
    rows = (3, 4, 7, *range(8, 41))
    same = tar_of(
        block(1, *rows, TOMBSTONE | 4),
        block(2, 41),
        ("msgs/index.db", index(4, [(1, 3, 8, set()), (2, 41, 41, set())])),
    )
    assert 4 not in sequences(same)
    later = tar_of(block(1, *rows), block(2, 41, TOMBSTONE | 4, 42, TOMBSTONE | 900), INDEX)
    assert 4 not in sequences(later)
    assert 41 in sequences(later)


def test_erased_records_and_sequence_0_are_no_rows() -> None:
    tar = tar_of(block(1, 3, 4, ERASED | 5, ERASED, 0, 6, 7, *range(8, 41)), block(2, ERASED | 41, 42), INDEX)
    assert sequences(tar) == [3, 4, *range(7, 41), 42]


def test_a_block_that_the_index_does_not_list_is_not_live() -> None:
    listed = ("msgs/index.db", index(4, [(1, 1, 2, set()), (3, 5, 6, set())]))
    assert sequences(tar_of(block(1, 1, 2), block(2, 3, 4), block(3, 5, 6), listed)) == [1, 2, 5, 6]


def test_rows_beyond_the_cut_are_never_given_but_their_tombstones_count() -> None:
    tar = tar_of(block(1, 3, 4, *range(7, 41)), block(2, 41, 42, 43, TOMBSTONE | 7), INDEX)
    found = decode(tar, last_seq=41)
    assert [row.seq for row in found.rows] == [3, 4, *range(7, 42)]
    assert list(found.deleted.ranges()) == [(7, 7)]


def test_a_block_with_fewer_messages_than_the_index_counts_is_a_failure() -> None:
    with pytest.raises(BadDataError, match="35 of 36 messages") as failed:
        decode(tar_of(block(1, 3, 4, 7, *range(9, 41)), block(2, 41), INDEX))
    assert failed.value.code == "data.snapshot-incomplete"
    with pytest.raises(BadDataError, match="0 of 36"):
        decode(tar_of(block(2, 41), INDEX))


def test_without_an_index_nobody_knows_what_limits_have_deleted() -> None:
    tar = tar_of(block(1, 3, 4))
    with pytest.raises(BadDataError) as failed:
        decode(tar)
    assert (failed.value.code, failed.value.retryable) == ("data.snapshot-index", True)
    with pytest.raises(BadDataError):
        decode(tar, messages=1)
    assert [row.seq for row in decode(tar, messages=2).live] == [3, 4]
    assert decode(tar_of(block(1, TOMBSTONE | 4))).rows == []
    assert decode(tar_of()).rows == []


# What is refused.


@pytest.mark.parametrize("rows", [(4, 3), (4, 4)])
def test_sequences_that_do_not_rise_are_refused(rows: tuple[int, int]) -> None:
    with pytest.raises(BadDataError, match="not above"):
        decode(tar_of(block(1, *rows), INDEX))
    with pytest.raises(BadDataError, match="not above"):
        decode(tar_of(block(1, rows[0]), block(2, rows[1]), INDEX))


def test_the_server_s_own_errors_fail_the_snapshot() -> None:
    tar = tar_of(("errors.txt", b"could not decompress message block [1]: s2: corrupt input"))
    with pytest.raises(BadDataError, match="s2: corrupt input") as failed:
        decode(tar)
    assert failed.value.code == "data.snapshot-errors"


def test_every_flipped_bit_that_the_servers_hash_covers_is_found() -> None:
    name, data = block(1, 3)
    # Where subject ends and payload begins is not hashed: bytes 20 and 21.
    for bit in [bit for bit in range(8 * len(data)) if bit // 8 not in (20, 21)]:
        bad = bytearray(data)
        bad[bit // 8] ^= 1 << bit % 8
        with pytest.raises(BadDataError, match="block 1"):
            decode(tar_of((name, bytes(bad))), messages=1)


def test_a_record_of_another_block_or_stream_is_refused() -> None:
    with pytest.raises(BadDataError, match="hash"):
        decode(tar_of(("msgs/2.blk", record(1, 3))))
    with pytest.raises(BadDataError, match="of stream 'S', not of T"):
        decode(tar_of(), stream="T")


def test_a_tar_that_ends_anywhere_else_is_refused() -> None:
    consumer = b'{"durable_name":"c"}'
    tar = tar_of(
        block(1, 3, 4, *range(7, 41)),
        block(2, 41),
        INDEX,
        ("obs/c/meta.inf", consumer),
        ("obs/c/meta.sum", keyed_digest("S/c", consumer).hex().encode()),
    )
    decode(tar)
    for end in range(0, len(tar), 256):
        with pytest.raises(BadDataError):
            decode(tar[:end])


@pytest.mark.parametrize(
    "members",
    [
        [("../meta.inf", b"{}")],
        [("/etc/passwd", b"")],
        [("msgs/../../1.blk", b"")],
        [("msgs/1.blk", b""), ("msgs/1.blk", b"")],
        [("msgs/2.blk", b""), ("msgs/1.blk", b"")],
        [("msgs/01.blk", b"")],
        [("msgs/99999999999.blk", b"")],
        [INDEX, ("msgs/3.blk", b"")],
        [INDEX, INDEX],
        [("meta.inf", META)],
        [("obs/c/meta.sum", b"x" * 16)],
        [("obs/c/meta.inf", b"{}"), ("obs/d/meta.sum", keyed_digest("S/c", b"{}").hex().encode())],
        [("obs/c/meta.inf", b"{}"), ("obs/c/meta.sum", b"0" * 16)],
        [("obs/c/meta.inf", b"[]")],
        [("obs/c/meta.inf", b"[" * 100_000)],
        [("obs/a/b/meta.inf", b"{}")],
        [("new.thing", b"")],
        [("meta.sum", b"0" * 16)],
    ],
)
def test_members_that_no_server_writes_are_refused(members: list[tuple[str, bytes]]) -> None:
    with pytest.raises(BadDataError):
        decode(tar_of(*members))


def test_a_consumer_twice_is_refused() -> None:
    one = [("obs/c/meta.inf", b"{}"), ("obs/c/meta.sum", keyed_digest("S/c", b"{}").hex().encode())]
    assert set(decode(tar_of(*one)).consumers) == {"c"}
    with pytest.raises(BadDataError, match="twice"):
        decode(tar_of(*one, *one))


@pytest.mark.parametrize(
    "kind",
    [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.CHRTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.XGLTYPE],
)
def test_links_devices_and_foreign_headers_are_refused(kind: bytes) -> None:
    info = tarfile.TarInfo("meta.inf")
    info.type, info.linkname = kind, "/etc/passwd"
    with pytest.raises(BadDataError, match="no regular file"):
        decode(info.tobuf(tarfile.USTAR_FORMAT) + END)


def pax(records: bytes, name: str = "meta.inf") -> bytes:
    info = tarfile.TarInfo("PaxHeaders.0/x")
    info.type, info.size = tarfile.XHDTYPE, len(records)
    return info.tobuf(tarfile.USTAR_FORMAT) + records + padding(len(records)) + member(name, META)


def test_a_pax_path_wins_over_the_name() -> None:
    tar = pax(b"17 path=meta.inf\n30 mtime=1700000000.123456789\n", "x") + member(*HEAD[1]) + END
    assert decode(tar).created == "2024-01-02T03:04:05.6Z"


@pytest.mark.parametrize(
    "records",
    [
        b"16 size=1000000\n",
        b"0 path=x\n",
        b"-1 path=x\n",
        b"99 path=x\n",
        b"path=x\n",
        b"8 path=x",
        b"9999999999999999999 path=x\n",
        b"20 path=../meta.inf\n",
        b"30 GNU.sparse.realsize=1000000\n",
    ],
)
def test_pax_headers_that_change_how_data_is_read_are_refused(records: bytes) -> None:
    with pytest.raises(BadDataError):
        decode(pax(records) + member(*HEAD[1]) + END)


@pytest.mark.parametrize(
    ("name", "size"),
    [("msgs/1.blk", 66 << 20), ("meta.inf", 1 << 30), ("msgs/1.blk", (1 << 33) - 1), ("errors.txt", 1 << 20)],
)
def test_absurd_sizes_are_refused_before_any_data(name: str, size: int) -> None:
    head = b"" if name == "meta.inf" else b"".join(member(*one) for one in HEAD)
    with pytest.raises(BadDataError, match="bytes"):
        list(TarDecoder("S", 9).feed(head + member_header(name, size, 0)))
    info = tarfile.TarInfo("PaxHeaders.0/x")
    info.type, info.size = tarfile.XHDTYPE, 1 << 30
    with pytest.raises(BadDataError, match="PAX"):
        list(TarDecoder("S", 9).feed(info.tobuf(tarfile.USTAR_FORMAT)))


def test_an_endless_index_is_read_in_bounded_memory() -> None:
    data = index(4, [(1, 1, 1, set())], subjects=40_000)  # 8 MB
    tar = (
        b"".join(member(*one) for one in HEAD)
        + member("msgs/1.blk", record(1, 1))
        + member_header("msgs/index.db", len(data), 0)
    )
    decoder = TarDecoder("S", 9)
    assert len(list(decoder.feed(tar))) == 1
    tracemalloc.start()
    for at in range(0, len(data), 1 << 18):
        assert list(decoder.feed(memoryview(data)[at : at + (1 << 18)])) == []
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 << 20
    assert len(list(decoder.feed(padding(len(data)) + END))) == 0
    assert len(list(decoder.close())) == 1


# What is written.

CONSUMERS = [
    ConsumerRecord("fresh", {"durable_name": "fresh", "name": "fresh"}, ConsumerState(), None),
    ConsumerRecord(
        "é" * 100,
        {"durable_name": "é" * 100, "filter_subject": "s.1"},
        ConsumerState(Position(7, 6), Position(4, 3), {5: Pending(7, 1_700_000_000 * 10**9)}, {5: 2}),
        "2024-02-03T04:05:06.7Z",
    ),
]


@pytest.mark.parametrize("piece", [1, 511, 100_000])
def test_what_was_written_is_read_back(piece: int) -> None:
    rows = make_rows([*range(5, 200), 300, 301, 500])
    tar = encode(rows, 500, CONSUMERS, created="2024-01-02T03:04:05Z", batch_rows=37)
    found = decode(tar, piece=piece, messages=len(rows))
    assert found.live == rows
    assert list(found.consumers.values()) == CONSUMERS
    assert found.created == "2024-01-02T03:04:05Z"


def members_of(tar: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(tar)) as opened:
        return {one.name: opened.extractfile(one).read() for one in opened}  # type: ignore[union-attr]


def test_python_s_tarfile_reads_it_too() -> None:
    assert list(members_of(encode(make_rows([1]), 1, CONSUMERS))) == [
        *("meta.inf", "meta.sum", "msgs/1.blk", "obs/fresh/meta.inf", "obs/fresh/meta.sum"),
        *(f"obs/{'é' * 100}/{name}" for name in ("meta.inf", "meta.sum", "o.dat")),
    ]


@compiled
def test_blocks_are_of_eight_megabytes_and_a_larger_message_has_its_own() -> None:
    rows = [Message(at, FIRST_TIME, b"s.1", b"", bytes(700_000)) for at in range(1, 30)]
    rows[14] = rows[14]._replace(payload=bytes(9_000_000))
    blocks = {name: len(data) for name, data in members_of(encode(rows, 29)).items() if name.endswith(".blk")}
    assert list(blocks) == [f"msgs/{number}.blk" for number in range(1, 6)]
    assert [size // 1000 for size in blocks.values()] == [7700, 2100, 9000, 7700, 2100]
    assert decode(encode(rows, 29), messages=29).live == rows


def test_a_wide_gap_ends_a_block_and_a_narrow_one_does_not() -> None:
    rows = make_rows([1, 2, 50_000, 1_000_000, 1_000_001, 50_000_000])
    for batch_rows in (1, 2, 100):
        tar = encode(rows, 50_000_000, batch_rows=batch_rows)
        assert [name for name in members_of(tar) if name.endswith(".blk")] == [f"msgs/{at}.blk" for at in (1, 2, 3)]
        assert decode(tar, messages=6).live == rows


def test_a_tail_without_messages_is_a_tombstone_in_a_block_of_its_own() -> None:
    rows = make_rows([1, 2])
    assert members_of(encode(rows, 9))["msgs/2.blk"] == tombstone_block("S", 2, 9, rows[-1].ts)
    assert members_of(encode([], 9))["msgs/1.blk"] == tombstone_block("S", 1, 9, 0)
    assert not [name for name in members_of(encode([], 0)) if "msgs" in name]


@compiled
def test_a_message_that_servers_would_drop_is_refused() -> None:
    largest = Message(1, FIRST_TIME, b"s.1", b"", bytes((32 << 20) - 33))
    assert decode(encode([largest], 1), messages=1).live == [largest]
    with pytest.raises(CannotRestoreError, match="message 1"):
        encode([largest._replace(payload=largest.payload + b"x")], 1)
