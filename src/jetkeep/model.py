"""Frozen value objects that every layer shares. Sequences are uint64, times are nanoseconds since the epoch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

#: A JSON object exactly as a server gave it, or as it goes to one.
JsonDict = dict[str, Any]


class Message(NamedTuple):
    """One stored message.

    `headers` is the raw NATS header block (`NATS/1.0\\r\\n…\\r\\n\\r\\n`), empty when the message has none;
    `ts` is in nanoseconds since the epoch.
    """

    seq: int
    ts: int
    subject: bytes
    headers: bytes
    payload: bytes


class Position(NamedTuple):
    """Where a consumer is: its own sequence and the stream's."""

    consumer_seq: int
    stream_seq: int


class Pending(NamedTuple):
    """A delivery that was not acknowledged: the consumer's sequence, and when (ns since the epoch; 0 = unknown)."""

    consumer_seq: int
    ts: int


@dataclass(frozen=True, slots=True)
class ConsumerState:
    """A consumer's durable state. Keys of `pending` and `redelivered` are stream sequences."""

    delivered: Position = Position(0, 0)
    ack_floor: Position = Position(0, 0)
    pending: dict[int, Pending] = field(default_factory=dict)
    redelivered: dict[int, int] = field(default_factory=dict)

    def within(self, first_seq: int, last_seq: int) -> ConsumerState:
        """This state as servers accept it for a stream that holds `first_seq` to `last_seq`.

        A floor below the first sequence less one, as older servers do hold, makes 2.15 ignore the whole state without
        a word; a delivery beyond the last sequence would make the consumer miss what is published next.
        """
        floor = min(max(self.ack_floor.stream_seq, first_seq - 1, 0), last_seq)
        delivered = min(max(self.delivered.stream_seq, floor), last_seq)
        if (floor, delivered) == (self.ack_floor.stream_seq, self.delivered.stream_seq):
            return self
        return ConsumerState(
            Position(self.delivered.consumer_seq, delivered),
            Position(self.ack_floor.consumer_seq, floor),
            {seq: one for seq, one in self.pending.items() if floor < seq <= delivered},
            {seq: count for seq, count in self.redelivered.items() if floor < seq <= delivered},
        )


@dataclass(frozen=True, slots=True)
class ConsumerRecord:
    """A consumer as it was captured: its name, its configuration as the server gave it, and its state.

    `created` is RFC 3339 as the server wrote it, or None where the snapshot form does not carry it.
    """

    name: str
    config: JsonDict
    state: ConsumerState
    created: str | None = None


@dataclass(frozen=True, slots=True)
class StreamBegan:
    """Work on one stream began; totals are the server's or the manifest's, 0 when unknown. `phase` is a verb."""

    stream: str
    phase: str
    messages: int
    bytes: int


@dataclass(frozen=True, slots=True)
class StreamAdvanced:
    """So many messages and raw bytes of this stream's phase are done, counted from its beginning."""

    stream: str
    phase: str
    messages: int
    bytes: int


@dataclass(frozen=True, slots=True)
class StreamEnded:
    """Work on one stream ended; `error` is empty when it went well."""

    stream: str
    phase: str
    error: str = ""


@dataclass(frozen=True, slots=True)
class Notice:
    """Something that a person should read; it fails nothing."""

    text: str
    stream: str = ""


#: What an operation tells while it works. Operations emit events and return reports; only the command line prints.
Event = StreamBegan | StreamAdvanced | StreamEnded | Notice
Emit = Callable[[Event], None]
