from __future__ import annotations

import random
from types import ModuleType

import pytest

from jetkeep.codecs import fingerprint
from jetkeep.codecs.batch import MessageBatch
from jetkeep.codecs.fingerprint import Fingerprint, message_hash
from jetkeep.codecs.kernels import _xxh3
from jetkeep.errors import BadDataError
from jetkeep.model import Message
from tests.kernel_sources import interpreted

TS = 1_795_439_700_123_456_789
#: docs/format.md, *Fingerprint*, has the same.
VECTORS = [
    (Message(1, TS, b"orders.new", b"", b""), "2c402c17366fe2354199b3651bb8aa30"),
    (
        Message(2, TS + 1, b"orders.new", b"NATS/1.0\r\nNats-Msg-Id: 7\r\n\r\n", b"hello"),
        "7b256d79b2b3cdb212b489642c936e0c",
    ),
    (Message(3, 0, b"caf\xe9.\xff", b"", b"\x00\x01\x02"), "a21fb0f61b793a38a6fe9805e0aff176"),
    (Message(4, -1, b"orders.large", b"", bytes(range(250))), "1d2be84e7b4cb95304cad629acb231dd"),
    (Message(2**64 - 1, TS, b"orders.larger", b"", bytes(range(256)) * 5), "35874f81fcfba78c462ee7b431ee8b53"),
]


@pytest.fixture(autouse=True, params=["running", "interpreted"])
def kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fingerprint, "_xxh3", _xxh3 if request.param == "running" else interpreted("_xxh3"))


@pytest.mark.parametrize(("message", "expected"), VECTORS)
def test_vectors(message: Message, expected: str) -> None:
    assert f"{message_hash(message):032x}" == expected
    assert Fingerprint.of(MessageBatch.of([message])).hex() == expected


def test_the_vectors_sum() -> None:
    whole = Fingerprint.of(MessageBatch.of(message for message, _ in VECTORS))
    assert (whole.hex(), whole.count) == ("9c3882577ce54aff464692ad079cc6e2", 5)


def test_kernel_is_the_sum_of_message_hashes_however_batches_are_cut() -> None:
    source = random.Random(4)
    messages = [
        Message(
            seq,
            source.randrange(-(2**63), 2**63),
            source.randbytes(source.randrange(1, 90)),
            source.randbytes(source.choice((0, 0, 40, 300))),
            source.randbytes(source.choice((0, 3, 15, 100, 200, 241, 1025, 5000))),
        )
        for seq in range(1, 400)
    ]
    expected = sum(map(message_hash, messages)) % 2**128
    batch = MessageBatch.of(messages)
    parts = Fingerprint()
    for low, high in ((0, 0), (0, 10), (10, 11), (11, 399)):
        parts.update(batch.slice(low, high))
    assert parts == Fingerprint.of(batch) == Fingerprint(expected, 399)
    assert Fingerprint.of(batch) - Fingerprint.of(batch.slice(0, 200)) == Fingerprint.of(batch.slice(200, 399))


def test_hex_is_read_back_and_nothing_else_is() -> None:
    one = Fingerprint.of(MessageBatch.of([VECTORS[1][0]]))
    assert Fingerprint.of_hex(one.hex(), 1) == one
    for text in ("", "0" * 31, "0" * 33, "A" * 32, "0" * 32 + "\n", "\u0660" * 32):
        with pytest.raises(BadDataError):
            Fingerprint.of_hex(text, 1)


@pytest.mark.parametrize("kernel", [_xxh3, interpreted("_xxh3")])
def test_offsets_outside_their_columns_are_noticed(kernel: ModuleType) -> None:
    batch = MessageBatch.of([VECTORS[1][0]])
    wrong = memoryview(bytearray(b"\0\0\0\0\x06\0\0\0")).cast("i")
    columns = [batch.subject_offsets, batch.subjects, batch.header_offsets, batch.headers, wrong, batch.payloads]
    assert kernel.fingerprint(batch.seq, batch.ts, *columns) == -1
