"""Prove that a stream holds what a backup says: read it back from the server and compare everything.

The server's own snapshot is read, so work queues are not disturbed, and hashed like the backup's rows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field

from jetkeep.catalog import live_batches
from jetkeep.codecs.batch import BatchBuilder, MessageBatch
from jetkeep.codecs.fingerprint import Fingerprint
from jetkeep.codecs.sequences import SequenceSet
from jetkeep.codecs.snapshot import SnapshotDecoder
from jetkeep.codecs.snapshot_events import ConsumerEvent, DeletedEvent, SnapshotEvent
from jetkeep.errors import BadDataError, ComparisonError
from jetkeep.jetstream import JetStream
from jetkeep.model import ConsumerRecord, Emit, JsonDict, StreamAdvanced
from jetkeep.repository.documents import Manifest
from jetkeep.repository.repository import Repository

#: Received bytes that are decoded in one go.
FEED_BYTES = 1024 * 1024
#: How many differing sequences an error names.
NAMED = 5


@dataclass(slots=True)
class Found:
    """What a stream on a server holds up to a sequence: rows, their fingerprint, its state and consumers."""

    state: JsonDict = field(default_factory=dict)
    fingerprint: Fingerprint = field(default_factory=Fingerprint)
    rows: SequenceSet = field(default_factory=SequenceSet)
    raw_bytes: int = 0
    consumers: dict[str, ConsumerRecord] = field(default_factory=dict)
    dead: SequenceSet = field(default_factory=SequenceSet)


async def fingerprint_stream(
    js: JetStream, name: str, last_seq: int | None = None, *, emit: Emit, phase: str = "compare"
) -> Found:
    """Read a stream back and fingerprint its messages up to `last_seq` (all without it).

    Nothing at the server changes. Memory: the ranges of its sequences.

    Raises:
        ServerError: the server refused, failed or stalled.
        BadDataError: what it sent is no whole snapshot.
    """
    try:
        found = await _read(js, name, last_seq, SequenceSet(), emit, phase)
        if found.dead.count() and (found.dead & found.rows):
            # Rows that turned out dead at the end were hashed: read again, now that they are known.
            found = await _read(js, name, last_seq, found.dead, emit, phase)
    except BadDataError as broken:
        if broken.code != "data.snapshot-errors":
            raise
        found = await _by_messages(js, name, last_seq, emit, phase)
    return found


async def _read(js: JetStream, name: str, last_seq: int | None, dead: SequenceSet, emit: Emit, phase: str) -> Found:
    found = Found()
    tally = _Tally(found, dead, emit, name, phase)
    async with js.snapshot(name) as snapshot:
        found.state = snapshot.state
        tally.last_seq = int(snapshot.state.get("last_seq", 0)) if last_seq is None else last_seq
        decoder = SnapshotDecoder(name, tally.last_seq)
        pending = bytearray()
        async for chunk in snapshot:
            pending += chunk
            if len(pending) >= FEED_BYTES:
                await asyncio.to_thread(tally.take, decoder.feed(pending))
                tally.tell()
                pending = bytearray()
        await asyncio.to_thread(tally.take, decoder.feed(pending))
        await asyncio.to_thread(tally.take, decoder.close())
    tally.finish()
    return found


async def _by_messages(js: JetStream, name: str, last_seq: int | None, emit: Emit, phase: str) -> Found:
    """For servers whose snapshot of this stream is broken (2.10 with compressed blocks)."""
    info = await js.stream_info(name)
    found = Found(state=info["state"])
    tally = _Tally(found, SequenceSet(), emit, name, phase)
    tally.last_seq = min(int(info["state"]["last_seq"]), last_seq if last_seq is not None else 2**64 - 1)
    builder = BatchBuilder()
    if int(info["state"]["messages"]):
        async for message in js.messages(name, int(info["state"]["first_seq"]), tally.last_seq, info["config"]):
            builder.append(message)
            if builder.full:
                await asyncio.to_thread(tally.add, builder.take())
                tally.tell()
    if builder.count:
        tally.add(builder.take())
    tally.finish()
    return found


class _Tally:
    """Adds up what comes out of a snapshot."""

    def __init__(self, found: Found, dead: SequenceSet, emit: Emit, name: str, phase: str) -> None:
        self._found, self._dead = found, dead
        self._emit, self._name, self._phase = emit, name, phase
        self._ranges: list[tuple[int, int]] = []
        self.last_seq = 0

    def take(self, events: Iterator[SnapshotEvent]) -> None:
        for event in events:
            if isinstance(event, MessageBatch):
                self.add(event)
            elif isinstance(event, ConsumerEvent):
                self._found.consumers[event.record.name] = event.record
            elif isinstance(event, DeletedEvent):
                self._found.dead |= event.sequences

    def add(self, batch: MessageBatch) -> None:
        if not len(batch) or batch.first_seq > self.last_seq:
            return
        if batch.last_seq > self.last_seq or self._dead.intersects(batch.first_seq, batch.last_seq):
            batch = batch.select(
                [at for at, seq in enumerate(batch.seq) if seq <= self.last_seq and seq not in self._dead]
            )
            if not len(batch):
                return
        self._found.fingerprint.update(batch)
        self._found.raw_bytes += batch.raw_bytes
        for first, last in batch.ranges():
            if self._ranges and self._ranges[-1][1] + 1 == first:
                self._ranges[-1] = (self._ranges[-1][0], last)
            else:
                self._ranges.append((first, last))

    def tell(self) -> None:
        self._emit(StreamAdvanced(self._name, self._phase, self._found.fingerprint.count, self._found.raw_bytes))

    def finish(self) -> None:
        self._found.rows = SequenceSet.from_ranges(self._ranges)
        self.tell()


async def compare_messages(repository: Repository, manifest: Manifest, found: Found, *, may_be_missing: int) -> int:
    """Compare what a server holds with what a manifest says; return how many messages rightly are not there.

    `may_be_missing` says how many messages may be absent at most: left out as too large, or ended by their own TTL while
    the archive was restored. They are then looked for one by one, and the rest must agree.

    Raises:
        ComparisonError: a message is missing, surplus or altered.
        BadDataError: the repository's bytes are not what they must be.
    """
    if (found.fingerprint.count, found.fingerprint.hex()) == (manifest.messages, manifest.fingerprint):
        return 0
    absent = manifest.messages - found.fingerprint.count
    expected = Fingerprint()
    missing: list[int] = []
    async for batch in live_batches(repository, manifest):
        keep = [at for at, seq in enumerate(batch.seq) if seq in found.rows]
        missing += [seq for seq in batch.seq if seq not in found.rows][: NAMED + may_be_missing - len(missing)]
        await asyncio.to_thread(expected.update, batch if len(keep) == len(batch) else batch.select(keep))
    if expected.hex() == found.fingerprint.hex() and expected.count == found.fingerprint.count:
        if 0 < absent <= may_be_missing:
            return absent
        named = ", ".join(map(str, missing[:NAMED]))
        raise _differs(manifest, f"{absent:,} messages are missing, the first at {named}")
    surplus = found.fingerprint.count - expected.count
    if surplus:
        raise _differs(manifest, f"{surplus:,} messages are there that the backup does not have")
    raise _differs(manifest, "messages are altered: every sequence is there, the fingerprint is another")


def _differs(manifest: Manifest, what: str) -> ComparisonError:
    return ComparisonError(
        f"{manifest.stream} does not come back as it was captured: {what}",
        code="comparison.messages",
        means="the restored stream was not opened and is removed; the backup is untouched",
        hint="run it again; if it repeats, run `jetkeep verify` and look at the target's log",
    )
