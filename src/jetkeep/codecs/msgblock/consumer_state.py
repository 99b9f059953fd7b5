"""`o.dat`: a consumer's state as servers keep it. Read in versions 1 and 2, written in version 2."""

from __future__ import annotations

from jetkeep.codecs.msgblock.varint import Bytes, put_uvarint, put_varint, read_uvarint, read_varint
from jetkeep.errors import BadDataError
from jetkeep.model import ConsumerState, Pending, Position

_MAGIC = 22
_SECOND = 1_000_000_000
_MASK = (1 << 64) - 1
_MAX_SECONDS = (1 << 63) // _SECOND - 1
#: More unacknowledged deliveries than any consumer was seen with; bounds the memory that a hostile file takes.
_MAX_ENTRIES = 4_000_000


def decode_consumer_state(data: Bytes, consumer: str) -> ConsumerState:
    """The state in an o.dat. Times are whole seconds there, in nanoseconds here.

    Raises:
        BadDataError: it is cut, or no consumer state.
    """
    try:
        return _decode(data)
    except (IndexError, ValueError) as error:
        raise BadDataError(
            f"the state of consumer {consumer} cannot be read: {str(error) or 'it is cut off'}",
            code="data.snapshot-consumer",
            means="where this consumer was is not known; nothing of this snapshot was used",
            hint="take the snapshot again; for a stored one, look for another copy",
        ) from error


def _decode(data: Bytes) -> ConsumerState:
    magic, version, at = data[0], data[1], 2
    if magic != _MAGIC or version not in (1, 2):
        raise ValueError(f"it begins with {magic}, {version}")
    floor_consumer, at = read_uvarint(data, at)
    floor_stream, at = read_uvarint(data, at)
    delivered_consumer, at = read_uvarint(data, at)
    delivered_stream, at = read_uvarint(data, at)
    if version == 1:
        # Version 1 kept what is delivered next, counted from the floor.
        delivered_consumer += max(floor_consumer, 1) - 1
        delivered_stream += max(floor_stream, 1) - 1
    pending: dict[int, Pending] = {}
    count, at = _count(data, at)
    base, at = read_varint(data, at) if count else (0, at)
    for _ in range(count):
        stream_seq, at = read_uvarint(data, at)
        consumer_seq, at = read_uvarint(data, at) if version == 2 else (-floor_consumer, at)
        offset, at = read_varint(data, at)
        seconds = base - offset if version == 2 else base + offset
        if abs(seconds) > _MAX_SECONDS:
            raise ValueError(f"a delivery {seconds} seconds from the epoch")
        pending[stream_seq + floor_stream & _MASK] = Pending(consumer_seq + floor_consumer & _MASK, seconds * _SECOND)
    redelivered: dict[int, int] = {}
    count, at = _count(data, at)
    for _ in range(count):
        stream_seq, at = read_uvarint(data, at)
        redelivered[stream_seq + floor_stream & _MASK], at = read_uvarint(data, at)
    if at != len(data):
        raise ValueError(f"it goes on behind its end by {len(data) - at} bytes")
    return ConsumerState(
        Position(delivered_consumer & _MASK, delivered_stream & _MASK),
        Position(floor_consumer, floor_stream),
        pending,
        redelivered,
    )


def _count(data: Bytes, at: int) -> tuple[int, int]:
    count, at = read_uvarint(data, at)
    if count > min(_MAX_ENTRIES, len(data)):
        raise ValueError(f"it claims {count} entries")
    return count, at


def encode_consumer_state(state: ConsumerState) -> bytes:
    """The bytes of an o.dat, version 2: what every server reads. Times lose what is below a second."""
    floor = state.ack_floor
    out = bytearray((_MAGIC, 2))
    for value in (*floor, *state.delivered):
        put_uvarint(out, value)
    put_uvarint(out, len(state.pending))
    if state.pending:
        base = max(one.ts for one in state.pending.values()) // _SECOND
        put_varint(out, base)
        for stream_seq, one in sorted(state.pending.items()):
            put_uvarint(out, stream_seq - floor.stream_seq)
            put_uvarint(out, one.consumer_seq - floor.consumer_seq)
            put_varint(out, base - one.ts // _SECOND)
    put_uvarint(out, len(state.redelivered))
    for stream_seq, count in sorted(state.redelivered.items()):
        put_uvarint(out, stream_seq - floor.stream_seq)
        put_uvarint(out, count)
    return bytes(out)
