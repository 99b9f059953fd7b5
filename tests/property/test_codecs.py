"""Whatever messages there are, codecs give them back; whatever bytes there are, they refuse them in words or read them."""

from __future__ import annotations

import random
from array import array

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jetkeep.codecs.archive import ArchiveDecoder, ArchiveEncoder
from jetkeep.codecs.batch import MessageBatch
from jetkeep.codecs.fingerprint import Fingerprint
from jetkeep.codecs.kernels import COMPILED, _kernels
from jetkeep.codecs.s2 import S2Decoder, S2Encoder
from jetkeep.codecs.segment import SegmentReader, SegmentWriter
from jetkeep.errors import BadDataError
from jetkeep.model import Message
from tests.kernel_sources import interpreted

SLOW_KERNELS = interpreted("_kernels")

times = st.integers(-(2**63), 2**63 - 1)
message_lists = st.lists(
    st.builds(
        Message,
        st.integers(1, 2**64 - 1),
        times,
        st.binary(min_size=1, max_size=40),
        st.one_of(st.just(b""), st.binary(max_size=60)),
        st.one_of(st.binary(max_size=100), st.integers(0, 70_000).map(bytes)),
    ),
    min_size=1,
    max_size=30,
    unique_by=lambda one: one.seq,
).map(lambda found: sorted(found, key=lambda one: one.seq))


def archive_of(messages: list[Message]) -> bytes:
    encoder = ArchiveEncoder()
    return encoder.begin({"messages": len(messages)}, []) + encoder.messages(MessageBatch.of(messages)) + encoder.end()


def read_archive(data: bytes, pieces: int = 1) -> list[Message]:
    decoder, found = ArchiveDecoder(batch_bytes=20_000, batch_rows=10), []
    step = len(data) // pieces + 1
    for at in range(0, len(data), step):
        found += [one for one in decoder.feed(data[at : at + step]) if isinstance(one, MessageBatch)]
    list(decoder.close())
    return [message for batch in found for message in batch]


@given(message_lists, st.integers(1, 50), st.booleans())
def test_messages_survive_archive_and_frames(messages: list[Message], pieces: int, compress: bool) -> None:
    frames = S2Encoder(compress=compress).encode(archive_of(messages))
    decoder = S2Decoder()
    step = len(frames) // pieces + 1
    unpacked = [part for at in range(0, len(frames), step) for part in decoder.feed(frames[at : at + step])]
    decoder.close()
    assert read_archive(b"".join(unpacked), pieces) == messages


@given(message_lists, st.integers(1, 30))
def test_messages_survive_a_segment_however_they_are_cut(messages: list[Message], cut: int) -> None:
    whole, pieces = SegmentWriter(), SegmentWriter()
    batch = MessageBatch.of(messages)
    whole.add(batch)
    for low in range(0, len(batch), cut):
        pieces.add(batch.slice(low, min(low + cut, len(batch))))
    made = whole.finish()
    assert pieces.finish() == made
    assert [message for batch in SegmentReader(made.data) for message in batch] == messages
    assert made.fingerprint == Fingerprint.of(batch).hex()


@given(message_lists, st.data())
def test_a_segments_rows_are_those_of_the_range(messages: list[Message], data: st.DataObject) -> None:
    writer = SegmentWriter()
    writer.add(MessageBatch.of(messages))
    edges = st.one_of(st.integers(0, 2**64 - 1), st.sampled_from([one.seq for one in messages]))
    first, last = data.draw(edges), data.draw(edges)
    found = [one for batch in SegmentReader(writer.finish().data).rows(first, last) for one in batch]
    assert found == [one for one in messages if first <= one.seq <= last]


@given(st.binary(max_size=300), st.booleans())
def test_any_bytes_are_refused_or_read(data: bytes, marked: bool) -> None:
    for read in (lambda: list(S2Decoder().feed(b"\xff\x06\x00\x00S2sTwO" * marked + data)), lambda: read_archive(data)):
        try:
            read()
        except BadDataError:
            continue
    with pytest.raises(BadDataError):
        list(SegmentReader(b"PAR1" * marked + data + b"PAR1" * marked))


def scanned(kernels: object, data: bytes, previous: int, rows: int, size: int) -> tuple[int, list[int]]:
    head, found = array("Q", bytes(40)), array("Q", bytes(48))
    end = kernels.archive_scan(data, 0, previous, rows, size, 65535, 1 << 26, head, found)  # type: ignore[attr-defined]
    return end, list(found)


def unpacked(kernels: object, data: bytes, found: list[int]) -> list[bytes]:
    _, rows, subjects, headers, payloads, _ = found
    columns = [bytearray(size) for size in (subjects, headers, payloads)]
    offsets = [memoryview(bytearray(4 * rows + 4)).cast("i") for _ in range(3)]
    seq, ts = array("Q", bytes(8 * rows)), array("q", bytes(8 * rows))
    both = [part for pair in zip(offsets, columns, strict=True) for part in pair]
    assert kernels.archive_unpack(data, 0, array("Q", bytes(40)), seq, ts, *both) == rows  # type: ignore[attr-defined]
    return [seq.tobytes(), ts.tobytes(), *map(bytes, both)]


@pytest.mark.skipif(not COMPILED, reason="nothing is compiled: there is nothing to compare")
@settings(max_examples=300)
@given(message_lists, st.integers(0, 2**32), st.integers(1, 40), st.integers(1, 100_000))
def test_compiled_and_interpreted_agree_on_hostile_entries(
    messages: list[Message], seed: int, rows: int, size: int
) -> None:
    source = random.Random(seed)
    data = bytearray(ArchiveEncoder().messages(MessageBatch.of(messages)) + bytes(5))
    for _ in range(source.randrange(4)):
        data[source.randrange(min(len(data), 200))] = source.choice((0, 1, 127, 128, 255, source.randrange(256)))
    hostile = bytes(data[: source.choice((len(data), source.randrange(len(data))))])
    end, found = scanned(_kernels, hostile, 0, rows, size)
    assert (end, found) == scanned(SLOW_KERNELS, hostile, 0, rows, size)
    assert end <= len(hostile)
    assert unpacked(_kernels, hostile, found) == unpacked(SLOW_KERNELS, hostile, found)


@given(message_lists)
def test_compiled_and_interpreted_write_the_same_entries(messages: list[Message]) -> None:
    batch = MessageBatch.of(messages)
    columns = (batch.subject_offsets, batch.subjects, batch.header_offsets, batch.headers)
    made = []
    for kernels in (_kernels, SLOW_KERNELS):
        out = bytearray(batch.raw_bytes + 51 * batch.count)
        size = kernels.archive_pack(batch.seq, batch.ts, *columns, batch.payload_offsets, batch.payloads, out)
        made.append(bytes(out[:size]))
        assert kernels.archive_pack(batch.seq, batch.ts, *columns, batch.payload_offsets, batch.payloads, out[:9]) == -1
    assert made[0] == made[1]
