from __future__ import annotations

import struct

import pytest

from jetkeep.codecs.msgblock.highwayhash import keyed_digest
from jetkeep.codecs.msgblock.index_db import IndexedBlock, IndexReader
from jetkeep.codecs.msgblock.server_set import read_server_set
from jetkeep.codecs.msgblock.varint import put_uvarint, put_varint
from jetkeep.codecs.sequences import SequenceSet
from jetkeep.errors import BadDataError


def server_set(members: set[int], version: int = 2) -> bytes:
    words = {1: 64, 2: 32}[version]
    bases = sorted({member - member % (64 * words) for member in members}, reverse=True)
    out = struct.pack("<BBII", 22, version, len(bases), len(members))
    for base in bases:
        bits = sum(1 << member - base for member in members if 0 <= member - base < 64 * words)
        out += struct.pack("<Q", base) + bits.to_bytes(8 * words, "little") + struct.pack("<H", 1)
    return out


def index(version: int, blocks: list[tuple[int, int, int, set[int]]], subjects: int = 3) -> bytes:
    out = bytearray((11, version))
    for put, value in ((put_uvarint, 5), (put_uvarint, 500), (put_uvarint, 1), (put_varint, 10**18)):
        put(out, value)
    put_uvarint(out, 99)
    put_varint(out, 10**18 + 5)
    put_uvarint(out, subjects)
    for number in range(subjects):
        subject = b"s.%d" % number * 50
        put_uvarint(out, len(subject))
        out += subject
        put_uvarint(out, 1 + number % 2)
        put_uvarint(out, 1)
        if number % 2 or version >= 4:
            put_uvarint(out, 300)
    put_uvarint(out, len(blocks))
    for number, first, last, deleted in blocks:
        for put, value in ((put_uvarint, number), (put_uvarint, 400), (put_uvarint, first), (put_varint, -5)):
            put(out, value)
        put_uvarint(out, last)
        put_varint(out, 70)
        put_uvarint(out, len(deleted))
        for _ in range(min(version - 1, 2)):
            put_uvarint(out, 1000)
        if deleted:
            out += server_set(deleted, 1 if version == 1 else 2)
    put_uvarint(out, 2)
    out += b"lasthash"
    return bytes(out) + keyed_digest("S", bytes(out))


def read(data: bytes, piece: int = 1 << 20) -> list[IndexedBlock]:
    reader = IndexReader("S", len(data))
    found = [one for at in range(0, len(data), piece) for one in reader.feed(memoryview(data)[at : at + piece])]
    reader.close()
    return found


@pytest.mark.parametrize("version", [1, 2])
def test_a_set_of_nodes_in_any_order_is_read(version: int) -> None:
    members = {1, 2, 3, 64, 127, 128, 2047, 2048, 9999, 50_000, 2**40, 2**40 + 1}
    data = b"xx" + server_set(members, version) + b"yy"
    found, end = read_server_set(data, 2)
    assert (found, end) == (SequenceSet.of(members), len(data) - 2)


def test_a_full_node_is_one_range() -> None:
    found, _ = read_server_set(server_set(set(range(2048, 6144))), 0)
    assert list(found.ranges()) == [(2048, 6143)]


@pytest.mark.parametrize("version", [1, 2, 3, 4])
@pytest.mark.parametrize("piece", [1, 13, 300, 1 << 20])
def test_every_version_is_read_in_any_pieces(version: int, piece: int) -> None:
    blocks = [(1, 3, 40, {5, 6, 30}), (2, 41, 90, set[int]()), (300, 95, 99, {97})]
    found = read(index(version, blocks), piece)
    assert [(one.number, one.first_seq, one.last_seq, one.deleted) for one in found] == [
        (number, first, last, SequenceSet.of(deleted)) for number, first, last, deleted in blocks
    ]
    assert [one.messages for one in found] == [35, 50, 4]


def test_an_empty_stream_s_index_is_read() -> None:
    assert read(index(4, [], subjects=0)) == []


def test_a_flipped_byte_is_found() -> None:
    data = bytearray(index(3, [(1, 3, 40, {5})]))
    data[20] ^= 1
    with pytest.raises(BadDataError, match="index"):
        read(bytes(data))


@pytest.mark.parametrize("cut", [0, 1, 7, 8, 9, 40, -20, -9, -1])
def test_a_cut_index_is_refused(cut: int) -> None:
    with pytest.raises(BadDataError, match="index"):
        read(index(4, [(1, 3, 40, {5})])[:cut])


def test_an_absurd_claim_is_refused_at_once_instead_of_waited_for() -> None:
    head = bytearray((11, 4, 5, 5, 1, 0, 9, 0, 1))
    put_uvarint(head, 2**50)
    with pytest.raises(BadDataError, match="subject"):
        list(IndexReader("S", 2**50).feed(memoryview(bytes(head))))
    block = bytearray((11, 4, 5, 5, 1, 0, 9, 0, 0, 1, 1, 1, 1, 0, 9, 0, 1, 0, 0))
    block += struct.pack("<BBII", 22, 2, 2**32 - 1, 1)
    with pytest.raises(BadDataError, match="nodes"):
        list(IndexReader("S", 2**50).feed(memoryview(bytes(block))))
