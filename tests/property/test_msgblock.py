from __future__ import annotations

import contextlib
import random
from array import array

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jetkeep.codecs.kernels import COMPILED, _blocks
from jetkeep.codecs.msgblock.consumer_state import decode_consumer_state, encode_consumer_state
from jetkeep.codecs.msgblock.highwayhash import keyed_state
from jetkeep.codecs.msgblock.server_set import read_server_set
from jetkeep.codecs.sequences import SequenceSet
from jetkeep.errors import BadDataError
from jetkeep.model import ConsumerState, Message, Pending, Position
from tests.kernel_sources import interpreted
from tests.msgblocks import decode, encode, make_rows
from tests.unit.test_msgblock_index import index, server_set
from tests.unit.test_msgblock_tar import INDEX, block, record, tar_of

rows = st.lists(
    st.builds(
        Message,
        seq=st.integers(1, 2**62 - 1) | st.integers(1, 200_000),
        ts=st.integers(-(2**63), 2**63 - 1),
        subject=st.binary(max_size=80),
        headers=st.just(b"") | st.binary(min_size=1, max_size=100),
        payload=st.binary(max_size=200),
    ),
    unique_by=lambda row: row.seq,
    max_size=60,
).map(sorted)


@given(rows, st.integers(1, 3000), st.integers(1, 70), st.integers(0, 5))
def test_whatever_is_written_is_read_back(found: list[Message], piece: int, batch_rows: int, tail: int) -> None:
    last = (found[-1].seq if found else 0) + tail
    tar = encode(found, last, batch_rows=batch_rows)
    assert decode(tar, piece=piece, messages=len(found)).live == found
    cut = found[len(found) // 2].seq if found else 0
    kept = [row for row in found if row.seq <= cut]
    assert decode(tar, last_seq=cut, messages=len(kept)).live == kept


uint = st.integers(0, 2**63 - 1)
times = st.integers(0, 9_000_000_000).map(lambda seconds: seconds * 10**9)


@given(
    st.builds(
        ConsumerState,
        st.builds(Position, uint, uint),
        st.builds(Position, uint, uint),
        st.dictionaries(uint, st.builds(Pending, uint, times), max_size=20),
        st.dictionaries(uint, uint, max_size=20),
    )
)
def test_whatever_state_is_written_is_read_back(state: ConsumerState) -> None:
    assert decode_consumer_state(encode_consumer_state(state), "c") == state


@given(st.binary(max_size=60))
def test_no_bytes_break_the_reader_of_states(data: bytes) -> None:
    with contextlib.suppress(BadDataError):
        decode_consumer_state(b"\x16\x02" + data, "c")


@given(st.sets(st.integers(0, 20_000) | st.integers(0, 2**63)), st.sampled_from((1, 2)))
def test_every_set_of_the_servers_is_read(members: set[int], version: int) -> None:
    data = server_set(members, version)
    assert read_server_set(data, 0) == (SequenceSet.of(members), len(data))


def mangled(source: random.Random, data: bytes) -> bytes:
    made = bytearray(data)
    for _ in range(source.choice((1, 1, 2, 5))):
        at = source.randrange(len(made) or 1)
        match source.randrange(5):
            case 0:
                made[at : at + 1] = bytes([source.randrange(256)])
            case 1:
                del made[at : at + source.choice((1, 512, 3000))]
            case 2:
                made[at:at] = source.randbytes(source.choice((1, 512)))
            case 3:
                made[at : at + 4] = source.choice((b"\xff\xff\xff\xff", b"\0\0\0\0", b"\xff\xff\xff\x7f", b"0000"))
            case _:
                other = source.randrange(len(made) or 1)
                made[at:at] = made[other : other + 512]
    return bytes(made)


def hostile_tars(count: int) -> None:
    source = random.Random(4)
    whole = tar_of(block(1, 3, 4, 7, *range(8, 41)), block(2, 41, 42), INDEX, ("errors.txt", b"x"))
    good = [
        encode(make_rows(range(1, 60)), 70),
        whole.replace(b"errors.txt", b"errors.tyt"),
        tar_of(block(1, 3, 4, *range(7, 41)), block(2, 41, 42), INDEX),
    ]
    refused = 0
    for _ in range(count):
        try:
            decode(mangled(source, source.choice(good)), piece=source.choice((97, 5000)), last_seq=41, messages=59)
        except BadDataError:
            refused += 1
    assert refused > count // 2


def test_no_tar_makes_anything_else_than_bad_data() -> None:
    hostile_tars(600)


@pytest.mark.slow
def test_no_tar_of_very_many_makes_anything_else_than_bad_data() -> None:
    hostile_tars(100_000)


@given(st.binary(max_size=400), st.integers(0, 3))
def test_no_index_makes_anything_else_than_bad_data(noise: bytes, keep: int) -> None:
    good = index(1 + keep, [(1, 3, 40, {5}), (2, 41, 99, set())])
    data = good[: len(good) * keep // 4] + noise
    with pytest.raises(BadDataError):
        decode(tar_of(block(1, 3), ("msgs/index.db", data)))


@pytest.mark.skipif(not COMPILED, reason="nothing is compiled: there is nothing to compare")
@settings(max_examples=300)
@given(st.binary(max_size=300), st.integers(0, 40), st.integers(0, 2**63 - 1), st.randoms(use_true_random=False))
def test_compiled_and_interpreted_blocks_agree(noise: bytes, rows: int, cut: int, source: random.Random) -> None:
    slow = interpreted("_blocks")
    data = b"".join(record(1, seq, noise[:seq]) for seq in (1, 2, 1 << 63 | 3, 4, 1 << 62 | 9, 50)) + noise
    if source.random() < 0.5:
        data = mangled(source, data)
    answers = []
    for kernel in (_blocks, slow):
        view, found = memoryview(data), memoryview(array("q", bytes(56)))
        end = kernel.scan(view, 0, rows, 500, cut, found)
        counts = found.tolist()
        _, count, subjects, headers, payloads, dead, _ = counts
        columns = [
            memoryview(array("Q", bytes(8 * count))),
            memoryview(array("q", bytes(8 * count))),
            *(
                memoryview(part)
                for size in (subjects, headers, payloads)
                for part in (array("i", bytes(4 * count + 4)), bytearray(size))
            ),
        ]
        tombstones = memoryview(array("Q", bytes(8 * dead)))
        scratch = memoryview(bytearray(65584))
        stopped = kernel.unpack(view, 0, end, cut, 0, keyed_state("S-1"), scratch, *columns, tombstones, found)
        written = memoryview(bytearray(len(data)))
        packed = kernel.pack(*columns, 0, count, keyed_state("S-1"), scratch, written, 0) if not found[0] else 0
        answers.append(
            (counts, end, stopped, found[0], [bytes(one) for one in (*columns, tombstones, written)], packed)
        )
    assert answers[0] == answers[1]
