from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from jetkeep.codecs import archive
from jetkeep.codecs.archive import MAX_BODY, MAX_DOCUMENT, ArchiveDecoder, ArchiveEncoder
from jetkeep.codecs.batch import MessageBatch
from jetkeep.codecs.kernels import _kernels
from jetkeep.codecs.s2 import S2Decoder
from jetkeep.codecs.snapshot_events import ConsumerEvent, SnapshotEvent, StateEvent
from jetkeep.errors import BadDataError
from jetkeep.model import ConsumerRecord, ConsumerState, Message, Pending, Position
from tests.kernel_sources import interpreted

GOLDEN = Path(__file__).parent.parent / "golden" / "natscli"
TS = 1_795_439_700_000_000_000
MESSAGES = [
    Message(1, TS, b"a.b", b"", b"one"),
    Message(2, -5, b"a." + b"x" * 300, b"NATS/1.0\r\nA: b\r\n\r\n", b""),
    Message(70_000, 0, b"\xff\xfe", b"", bytes(range(256)) * 4),
    Message(2**64 - 2, 2**63 - 1, b"z", b"", b"last"),
    Message(2**64 - 1, -(2**63), b"z", b"", b"very last"),
]
CONSUMER = ConsumerRecord(
    "worker",
    {"durable_name": "worker", "ack_policy": "explicit"},
    ConsumerState(Position(9, 12), Position(4, 5), {7: Pending(6, TS), 9: Pending(8, 0)}, {7: 2}),
)
STATE = {"messages": 5, "bytes": 1, "first_seq": 1, "last_seq": 2**64 - 1}


@pytest.fixture(autouse=True, params=["running", "interpreted"])
def kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "_kernels", _kernels if request.param == "running" else interpreted("_kernels"))


def encode(messages: list[Message], consumers: tuple[ConsumerRecord, ...] = (CONSUMER,)) -> bytes:
    encoder = ArchiveEncoder()
    return encoder.begin(STATE, consumers) + encoder.messages(MessageBatch.of(messages)) + encoder.end()


def events(data: bytes, step: int = 0, **limits: int) -> list[SnapshotEvent]:
    decoder, out = ArchiveDecoder(**limits), []
    for at in range(0, len(data), step or len(data) or 1):
        out += list(decoder.feed(data[at : at + (step or len(data) or 1)]))
    out += list(decoder.close())
    return out


def messages(found: list[SnapshotEvent]) -> list[Message]:
    return [message for event in found if isinstance(event, MessageBatch) for message in event]


def uvarint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def entry(name: bytes, body: bytes = b"", *, ts: int = 0, seq: int = 0, headers: bytes = b"") -> bytes:
    head = [len(name), ts << 1, seq, len(headers), len(body)]
    return b"".join(map(uvarint, head)) + name + headers + body


def state(count: Any = 0) -> bytes:
    return b"NATSARC1" + entry(b"state.json", json.dumps({"consumer_count": count}).encode())


@pytest.mark.parametrize("step", [0, 1, 7, 100])
def test_what_was_encoded_is_decoded(step: int) -> None:
    found = events(encode(MESSAGES), step)
    assert found[0] == StateEvent({**STATE, "consumer_count": 1})
    assert found[1] == ConsumerEvent(CONSUMER)
    assert messages(found) == MESSAGES


def test_batches_stay_within_their_limits_and_large_messages_go_alone() -> None:
    many = [Message(seq, TS, b"s", b"", bytes(100 if seq % 10 else 5000)) for seq in range(1, 200)]
    found = [one for one in events(encode(many), batch_bytes=1000, batch_rows=7) if isinstance(one, MessageBatch)]
    assert messages(list(found)) == many
    assert max(len(one) for one in found) == 7
    assert all(one.raw_bytes - 16 * len(one) <= 1000 or len(one) == 1 for one in found)


def test_an_empty_stream_has_no_batch() -> None:
    assert events(encode([], ())) == [StateEvent({**STATE, "consumer_count": 0})]


def test_a_consumer_without_state_has_an_empty_one() -> None:
    body = json.dumps({"config": {"name": "c"}, "state": {"delivered": {}, "pending": None}}).encode()
    (_, consumer) = events(state(1) + entry(b"consumers/c", body) + bytes(5))
    assert consumer == ConsumerEvent(ConsumerRecord("c", {"name": "c"}, ConsumerState()))


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"NATSARC2" + bytes(40), "NATSARC1"),
        (b"NATSARC1" + bytes(5), "state is missing"),
        (b"NATSARC1" + entry(b"state.jso", b"{}"), "does not begin with the stream's state"),
        (b"NATSARC1" + entry(b"state.json", b"[]"), "not a JSON object"),
        (b"NATSARC1" + entry(b"state.json", b"[" * 100_000), "not a JSON object"),
        (b"NATSARC1" + entry(b"state.json", b"{", seq=0), "not a JSON object"),
        (b"NATSARC1" + entry(b"state.json", b"{}", seq=1), "state is missing"),
        (state(-1), "does not begin"),
        (state("1"), "does not begin"),
        (state(1) + bytes(5), "state is missing"),
        (state(1) + entry(b"consumers/", b"{}"), "where a consumer should"),
        (state(1) + entry(b"a.b", b"{}"), "where a consumer should"),
        (state(1) + entry(b"consumers/c", b"{}"), "not a consumer"),
        (state(1) + entry(b"consumers/\xff", b'{"config":{}}'), "not a consumer"),
        (state(1) + entry(b"consumers/c", b'{"config":{},"state":{"pending":{"x":{}}}}'), "not a consumer"),
        (state() + entry(b"consumers/c", b'{"config":{}}'), "do not rise"),
        (state() + entry(b"a", seq=0), "do not rise"),
        (state() + entry(b"a", seq=2) + entry(b"a", seq=2), "do not rise"),
        (state() + entry(b"", b"x", seq=2), "no subject"),
        (state() + entry(b"", seq=2), "no subject"),
        (state() + bytes(5) + b"\0", "after its end mark"),
        (state() + b"\x01" + b"\xff" * 9 + b"\x02" + bytes(3), "longer than 64 bits"),
        (state() + b"\x01" + b"\xff" * 10 + bytes(3), "longer than 64 bits"),
        (state() + uvarint(65536) + bytes([0, 1, 0, 0]), "larger"),
        (state() + b"\x01\x00\x01" + uvarint(MAX_BODY) + b"\x01", "larger"),
        (state() + b"\x01\x00\x01\x00" + uvarint(2**64 - 1), "larger"),
        (state() + b"\x01\x00\x01" + uvarint(2**64 - 1) + uvarint(2**64 - 1), "larger"),
        (b"NATSARC1\x0a\0\0\0" + uvarint(MAX_DOCUMENT + 1), "larger"),
        (b"NATSARC1\x0a\0\0\x01\0", "larger"),
        (b"NATSARC1" + b"\xff" * 11, "longer than 64 bits"),
    ],
)
def test_what_the_format_does_not_allow_is_refused(data: bytes, why: str) -> None:
    for step in (0, 1):
        with pytest.raises(BadDataError, match=why):
            events(data, step)


def test_an_archive_without_its_end_mark_is_refused_wherever_it_ends() -> None:
    data = encode(MESSAGES)
    for size in range(len(data)):
        with pytest.raises(BadDataError):
            events(data[:size])


def test_a_large_message_in_small_pieces_is_put_together_once() -> None:
    large = Message(1, TS, b"a", b"", bytes(3_000_000))
    assert messages(events(encode([large]), 1000)) == [large]


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("captured-2.15/*.s2")) + sorted(GOLDEN.glob("*-2.15/*/*.s2")))
def test_what_a_server_wrote_is_written_again(path: Path) -> None:
    frames = S2Decoder()
    data = b"".join(frames.feed(path.read_bytes()))
    frames.close()
    found = events(data, 1000)
    state = next(event.state for event in found if isinstance(event, StateEvent))
    batch = MessageBatch.of(messages(found))
    assert batch.count == state["messages"]
    encoder = ArchiveEncoder()
    consumers = [event.record for event in found if isinstance(event, ConsumerEvent)]
    again = encoder.begin(state, consumers) + encoder.messages(batch) + encoder.end()
    assert [one for one in events(again) if not isinstance(one, MessageBatch)] == [
        one for one in found if not isinstance(one, MessageBatch)
    ]
    assert data.endswith(encoder.messages(batch) + encoder.end())
