"""Read a stream by the server's snapshot: decode while receiving, hand batches to the assembler."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from jetkeep.capture.assembly import Assembler
from jetkeep.capture.reading import Reading
from jetkeep.codecs.archive import ArchiveDecoder
from jetkeep.codecs.batch import MessageBatch
from jetkeep.codecs.msgblock import TarDecoder
from jetkeep.codecs.s2 import S2Decoder
from jetkeep.codecs.sequences import SequenceSet
from jetkeep.codecs.snapshot_events import ConsumerEvent, DeletedEvent, SnapshotEvent
from jetkeep.errors import BadDataError
from jetkeep.jetstream import JetStream
from jetkeep.model import ConsumerRecord

#: Received bytes that are decoded in one go: enough to make a thread's hop cheap, small against the memory bound.
FEED_BYTES = 1024 * 1024


async def read_by_snapshot(js: JetStream, stream: str, assembler: Assembler) -> Reading:
    """Receive the snapshot of `stream` and hand its live rows to `assembler`.

    The rows are cut at the last sequence of the state that the server gave with the snapshot: what a server up to
    2.14 sends beyond it is not of that moment.

    Raises:
        ServerError: the server refused, failed or stalled; what was received is useless.
        BadDataError: what came is not a whole snapshot.
    """
    consumers: list[ConsumerRecord] = []
    dead = SequenceSet()
    async with js.snapshot(stream) as snapshot:
        decoder = SnapshotDecoder(stream, int(snapshot.state.get("last_seq", 0)))
        pending = bytearray()
        async for chunk in snapshot:
            pending += chunk
            if len(pending) >= FEED_BYTES:
                dead |= await _hand_over(decoder, pending, consumers, assembler)
                pending = bytearray()
        dead |= await _hand_over(decoder, pending, consumers, assembler)
        events = await asyncio.to_thread(lambda: list(decoder.close()))
        dead |= await _dispatch(events, consumers, assembler)
        return Reading(snapshot.config, snapshot.state, consumers, dead)


async def _hand_over(
    decoder: SnapshotDecoder, received: bytearray, consumers: list[ConsumerRecord], assembler: Assembler
) -> SequenceSet:
    if not received:
        return SequenceSet()
    events = await asyncio.to_thread(lambda: list(decoder.feed(received)))
    return await _dispatch(events, consumers, assembler)


async def _dispatch(events: list[SnapshotEvent], consumers: list[ConsumerRecord], assembler: Assembler) -> SequenceSet:
    dead = SequenceSet()
    for event in events:
        if isinstance(event, MessageBatch):
            await assembler.add(event)
        elif isinstance(event, ConsumerEvent):
            consumers.append(event.record)
        elif isinstance(event, DeletedEvent):
            dead |= event.sequences
    return dead


class SnapshotDecoder:
    """S2 frames of either snapshot form in, events out. `close` must be called: it finds what is missing."""

    def __init__(self, stream: str, last_seq: int) -> None:
        self._s2 = S2Decoder()
        self._stream = stream
        self._last_seq = last_seq
        self._inner: ArchiveDecoder | TarDecoder | None = None
        self._head = b""

    def feed(self, received: bytes | bytearray) -> Iterator[SnapshotEvent]:
        """Decode what was received; raises BadDataError at the first byte that is wrong."""
        for decoded in self._s2.feed(received):
            if self._inner is None:
                self._head += bytes(decoded)
                if len(self._head) < 8:
                    continue
                is_archive = self._head.startswith(b"NATSARC1")
                self._inner = ArchiveDecoder() if is_archive else TarDecoder(self._stream, self._last_seq)
                decoded, self._head = self._head, b""  # noqa: PLW2901 - what was held back comes first
            yield from self._inner.feed(decoded)

    def close(self) -> Iterator[SnapshotEvent]:
        """The end of the bytes: give the last events, or say what is missing."""
        self._s2.close()
        if self._inner is None:
            raise BadDataError(
                f"the snapshot of {self._stream} held {len(self._head)} bytes, which is no snapshot",
                code="data.snapshot-empty",
                means="nothing of this stream was stored in this run",
                hint="look at the server's log for the stream's name, and run the backup again",
            )
        yield from self._inner.close()
