"""What the tests of the v1 snapshot form share: decode a tar whole, encode one, look for what is live."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

from jetkeep.codecs.batch import MessageBatch
from jetkeep.codecs.msgblock import TarDecoder, TarEncoder
from jetkeep.codecs.sequences import SequenceSet
from jetkeep.codecs.snapshot_events import ConsumerEvent, DeletedEvent, SnapshotEvent
from jetkeep.model import ConsumerRecord, JsonDict, Message

FIRST_TIME = 1_700_000_000_123_456_789


@dataclass
class Decoded:
    """Everything that came out of a tar."""

    rows: list[Message]
    deleted: SequenceSet
    consumers: dict[str, ConsumerRecord]
    created: str | None

    @property
    def live(self) -> list[Message]:
        """The rows that are live."""
        return [row for row in self.rows if row.seq not in self.deleted]


def decode(
    tar: bytes, stream: str = "S", last_seq: int = 2**62 - 1, *, piece: int = 1 << 20, messages: int | None = None
) -> Decoded:
    """Feed `tar` in pieces of `piece` bytes."""
    decoder = TarDecoder(stream, last_seq, messages=messages)
    events: list[SnapshotEvent] = []
    for at in range(0, len(tar), piece):
        events += decoder.feed(tar[at : at + piece])
    events += decoder.close()
    rows = [row for event in events if isinstance(event, MessageBatch) for row in event]
    deleted = [event.sequences for event in events if isinstance(event, DeletedEvent)]
    assert len(deleted) == 1
    assert isinstance(events[-1], DeletedEvent)
    assert deleted[0].count() == sum(row.seq in deleted[0] for row in rows), "names what was never given"
    consumers = {event.record.name: event.record for event in events if isinstance(event, ConsumerEvent)}
    return Decoded(rows, deleted[0], consumers, decoder.created)


def encode(
    rows: Iterable[Message],
    last_seq: int,
    consumers: Iterable[ConsumerRecord] = (),
    *,
    config: JsonDict | None = None,
    created: str | None = None,
    batch_rows: int = 5000,
) -> bytes:
    """A tar of these rows, handed over in batches of `batch_rows`."""
    config = config or {"name": "S", "subjects": ["s.>"]}
    encoder = TarEncoder(config["name"], config, created)
    parts = [encoder.begin()]
    parts += [encoder.messages(MessageBatch.of(chunk)) for chunk in _chunks(iter(rows), batch_rows)]
    return b"".join([*parts, *encoder.end(last_seq, consumers)])


def _chunks(rows: Iterator[Message], size: int) -> Iterator[list[Message]]:
    while chunk := list(islice(rows, size)):
        yield chunk


def make_rows(sequences: Iterable[int], payload: int = 40) -> list[Message]:
    """Rows with these sequences; every third has headers, some have empty payloads."""
    return [
        Message(
            seq,
            FIRST_TIME + 1001 * at,
            b"s.%d" % (at % 7),
            b"NATS/1.0\r\nA: %d\r\n\r\n" % at if at % 3 == 0 else b"",
            (b"%d-" % seq * payload)[: at * 13 % (payload + 1)],
        )
        for at, seq in enumerate(sequences)
    ]
