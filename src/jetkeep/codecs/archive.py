"""The archive that servers from 2.15 on send and take as a snapshot: `NATSARC1`, then entries, then five zero bytes.

An entry is five integers (length of its name, time, sequence, length of its headers, length of its payload; LEB128, the
time zigzag), the name, the headers, the payload. First `state.json` and one `consumers/<name>` for each consumer, all
with sequence 0; then the messages in rising order, their subjects as names; gaps are deletions.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterable, Iterator

import msgspec

from jetkeep.codecs.batch import BATCH_BYTES, BATCH_ROWS, MessageBatch
from jetkeep.codecs.kernels import _kernels
from jetkeep.codecs.snapshot_events import ConsumerEvent, SnapshotEvent, StateEvent
from jetkeep.errors import BadDataError
from jetkeep.model import ConsumerRecord, ConsumerState, JsonDict, Pending, Position

MAGIC = b"NATSARC1"
SENTINEL = bytes(5)
#: A subject's length is 16 bits wide in a server's blocks.
MAX_SUBJECT = 65535
#: Headers and payload: no server takes more than 64 MiB from a client; servers add a few headers of their own.
MAX_BODY = 65 * 1024 * 1024
#: A stream's state is a handful of numbers and times.
MAX_STATE = 1024 * 1024
#: A consumer's state grows by some 70 bytes for every delivery that waits for its acknowledgement.
MAX_DOCUMENT = 256 * 1024 * 1024
#: An entry's five integers at their longest.
_MAX_HEAD = 50

_WRONG = {
    _kernels.MALFORMED: "an integer is longer than 64 bits",
    _kernels.TOO_LARGE: "an entry claims to be larger than any message can be",
    _kernels.OUT_OF_ORDER: "sequences do not rise",
    _kernels.NO_SUBJECT: "a message has no subject",
}


class ArchiveDecoder:
    """An archive's bytes in, in pieces of any size; state, consumers and batches of messages out.

    Holds at most one entry that is not complete, and refuses those that claim to be larger than the format's limits.
    """

    def __init__(self, batch_bytes: int = BATCH_BYTES, batch_rows: int = BATCH_ROWS) -> None:
        self._batch_bytes, self._batch_rows = batch_bytes, batch_rows
        self._pending = bytearray()
        self._needed = len(MAGIC)
        #: Documents that are still to come; None while it is not known how many.
        self._documents: int | None = None
        self._begun = self._ended = False
        self._last_seq = 0
        self._head, self._found = array("Q", bytes(5 * 8)), array("Q", bytes(6 * 8))

    def feed(self, decoded: bytes | bytearray | memoryview) -> Iterator[SnapshotEvent]:
        """What is complete now; iterate to the end.

        Raises:
            BadDataError: the bytes are not an archive.
        """
        held = self._pending
        if held:
            held += decoded
            # In place until the entry is whole: an entry of many pieces must not be copied with each of them.
            if len(held) < self._needed:
                return
            self._pending = bytearray()
        data, at = memoryview(held or decoded), 0
        if len(data) >= self._needed:
            self._needed = 0
            if not self._begun:
                at = self._magic(data)
            while self._documents != 0 and not self._needed:
                document, at = self._document(data, at)
                if document:
                    yield document
            while not self._needed and not self._ended:
                batch, at = self._messages(data, at)
                if batch:
                    yield batch
        if self._ended and at < len(data):
            raise _bad("there are bytes after its end mark")
        self._pending += data[at:]

    def close(self) -> Iterator[SnapshotEvent]:
        """The end of the bytes; an archive has no event left.

        Raises:
            BadDataError: the archive's end mark is missing.
        """
        if not self._ended:
            raise _bad("it ends before its end mark")
        return iter(())

    def _magic(self, data: memoryview) -> int:
        if data[: len(MAGIC)] != MAGIC:
            raise _bad("it does not begin with NATSARC1")
        self._begun = True
        return len(MAGIC)

    def _document(self, data: memoryview, at: int) -> tuple[SnapshotEvent | None, int]:
        """The state or a consumer, and where the next entry begins; asks for more bytes when it is not complete."""
        body = _kernels.archive_head(data, at, self._head)
        if body == -1:
            self._needed = len(data) - at + 1
            return None, at
        if body < 0:
            raise _bad(_WRONG[_kernels.MALFORMED])
        name_size, _, seq, headers, size = self._head
        if name_size > MAX_SUBJECT or size > (MAX_STATE if self._documents is None else MAX_DOCUMENT) or headers:
            raise _bad(_WRONG[_kernels.TOO_LARGE])
        if body + name_size + size > len(data):
            self._needed = body + name_size + size - at
            return None, at
        name, end = bytes(data[body : body + name_size]), body + name_size + size
        if seq or not name:
            raise _bad("a document of its state is missing")
        content = _object(name, bytes(data[body + name_size : end]))
        if self._documents is None:
            self._documents = _consumer_count(name, content)
            return StateEvent(content), end
        self._documents -= 1
        return ConsumerEvent(_consumer(name, content)), end

    def _messages(self, data: memoryview, at: int) -> tuple[MessageBatch | None, int]:
        """A batch, and where the next entry begins; asks for more bytes when the next entry is not complete."""
        end = _kernels.archive_scan(
            data,
            at,
            self._last_seq,
            self._batch_rows,
            self._batch_bytes,
            MAX_SUBJECT,
            MAX_BODY,
            self._head,
            self._found,
        )
        status, rows, subjects, headers, payloads, last_seq = self._found
        if status in _WRONG:
            raise _bad(f"{_WRONG[status]} (after sequence {last_seq})")
        batch = self._columns(data, at, rows, subjects, headers, payloads) if rows else None
        self._last_seq = last_seq
        self._ended = status == _kernels.SENTINEL
        if status == _kernels.CUT:
            self._needed = self._cut_entry(data, end)
        return batch, end

    def _cut_entry(self, data: memoryview, at: int) -> int:
        """How many bytes from `at` on are needed to go on: the whole entry, if its head is there."""
        body = _kernels.archive_head(data, at, self._head)
        if body < 0:
            return len(data) - at + 1
        name, _, _, headers, payload = self._head
        return int(body - at + name + headers + payload)

    def _columns(
        self, data: memoryview, at: int, rows: int, subjects: int, headers: int, payloads: int
    ) -> MessageBatch:
        seq, ts = memoryview(bytearray(8 * rows)).cast("Q"), memoryview(bytearray(8 * rows)).cast("q")
        columns = []
        for size in (subjects, headers, payloads):
            columns += [memoryview(bytearray(4 * rows + 4)).cast("i"), memoryview(bytearray(size))]
        filled = _kernels.archive_unpack(data, at, self._head, seq, ts, *columns)
        assert filled == rows, "columns are of the size that was measured"
        return MessageBatch(rows, seq, ts, *columns)


class ArchiveEncoder:
    """State, consumers and batches in, an archive's bytes out. Servers count nothing: what is put in must be right."""

    def begin(self, state: JsonDict, consumers: Iterable[ConsumerRecord]) -> bytes:
        """The archive's beginning; the state's `consumer_count` is set to how many there are.

        Args:
            state: `messages`, `bytes`, `first_seq`, `first_ts`, `last_seq`, `last_ts` as in a stream's information.
            consumers: with states that a server does not ignore: no floor below the first sequence - 1.
        """
        records = list(consumers)
        entries = [_entry(b"state.json", {**state, "consumer_count": len(records)})]
        for one in records:
            content = {"config": one.config, "state": _state_json(one.state)}
            entries += [_entry(b"consumers/" + one.name.encode(), content)]
        return b"".join((MAGIC, *entries))

    def messages(self, batch: MessageBatch) -> bytes:
        """The entries of a batch, whose sequences are above all before."""
        out = bytearray(batch.raw_bytes + (_MAX_HEAD + 1) * batch.count)
        columns = (batch.subject_offsets, batch.subjects, batch.header_offsets, batch.headers)
        size = _kernels.archive_pack(batch.seq, batch.ts, *columns, batch.payload_offsets, batch.payloads, out)
        assert size >= 0, "a batch's offsets lie inside its columns"
        return bytes(memoryview(out)[:size])

    def end(self) -> bytes:
        """The end mark."""
        return SENTINEL


def _entry(name: bytes, content: JsonDict) -> bytes:
    body = json.dumps(content, separators=(",", ":"), ensure_ascii=False).encode()
    return _uvarint(len(name)) + b"\0\0\0" + _uvarint(len(body)) + name + body


def _uvarint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def _object(name: bytes, body: bytes) -> JsonDict:
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise _bad(f"{name[:80]!r} is not a JSON object")
    return content


def _consumer_count(name: bytes, state: JsonDict) -> int:
    count = state.get("consumer_count", 0)
    if name != b"state.json" or not isinstance(count, int) or count < 0:
        raise _bad("it does not begin with the stream's state")
    return count


class _Sequences(msgspec.Struct, frozen=True):
    consumer_seq: int = 0
    stream_seq: int = 0


class _Delivery(msgspec.Struct, frozen=True, rename={"seq": "Sequence", "ts": "Timestamp"}):
    seq: int = 0
    ts: int = 0


class _State(msgspec.Struct, frozen=True):
    delivered: _Sequences = _Sequences()
    ack_floor: _Sequences = _Sequences()
    pending: dict[int, _Delivery] | None = None
    redelivered: dict[int, int] | None = None


class _Consumer(msgspec.Struct, frozen=True):
    config: JsonDict
    state: _State = _State()


def _consumer(entry_name: bytes, content: JsonDict) -> ConsumerRecord:
    kind, _, name = entry_name.partition(b"/")
    if kind != b"consumers" or not name:
        raise _bad(f"{entry_name[:80]!r} stands where a consumer should")
    try:
        found = msgspec.convert(content, _Consumer, str_keys=True)
        text = name.decode()
    except (msgspec.ValidationError, UnicodeDecodeError) as wrong:
        raise _bad(f"{entry_name[:80]!r} is not a consumer: {wrong}") from None
    state = ConsumerState(
        Position(found.state.delivered.consumer_seq, found.state.delivered.stream_seq),
        Position(found.state.ack_floor.consumer_seq, found.state.ack_floor.stream_seq),
        {seq: Pending(one.seq, one.ts) for seq, one in (found.state.pending or {}).items()},
        dict(found.state.redelivered or {}),
    )
    return ConsumerRecord(text, found.config, state)


def _state_json(state: ConsumerState) -> JsonDict:
    return {
        "delivered": state.delivered._asdict(),
        "ack_floor": state.ack_floor._asdict(),
        "pending": {
            str(seq): {"Sequence": one.consumer_seq, "Timestamp": one.ts} for seq, one in state.pending.items()
        },
        "redelivered": {str(seq): count for seq, count in state.redelivered.items()},
    }


def _bad(why: str) -> BadDataError:
    return BadDataError(
        f"snapshot archive: {why}",
        code="data.archive",
        means="it is not a whole snapshot, and nothing of it is to be trusted",
        hint="take the snapshot again; if these are a file's bytes, the file is damaged",
    )
