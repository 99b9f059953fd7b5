"""Decode a snapshot while its bytes come in, and hand its rows to the assembler."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Iterator
from dataclasses import dataclass, field

from jetkeep.assembly.segments import Assembler
from jetkeep.codecs.batch import MessageBatch
from jetkeep.codecs.sequences import SequenceSet
from jetkeep.codecs.snapshot import SnapshotDecoder
from jetkeep.codecs.snapshot_events import ConsumerEvent, DeletedEvent, SnapshotEvent, StateEvent
from jetkeep.errors import BadDataError
from jetkeep.model import ConsumerRecord, JsonDict

#: Received bytes that are decoded in one go: enough to make a thread's hop cheap, small against the memory bound.
FEED_BYTES = 1024 * 1024


@dataclass(slots=True)
class Taken:
    """What a snapshot held beside its rows; `consumers` by name, `state` is the archive's own, None in the tar form."""

    consumers: dict[str, ConsumerRecord] = field(default_factory=dict)
    dead: SequenceSet = field(default_factory=SequenceSet)
    state: JsonDict | None = None


async def take_snapshot(chunks: AsyncIterable[bytes], decoder: SnapshotDecoder, assembler: Assembler) -> Taken:
    """Feed all chunks to the decoder and its batches to the assembler.

    Raises:
        BadDataError: what came is not a whole snapshot.
        StoreError: a segment could not be stored.
    """
    taken = Taken()
    pending = bytearray()
    async for chunk in chunks:
        pending += chunk
        if len(pending) >= FEED_BYTES:
            await _dispatch(decoder.feed(pending), taken, assembler)
            pending = bytearray()
    if pending:
        await _dispatch(decoder.feed(pending), taken, assembler)
    await _dispatch(decoder.close(), taken, assembler)
    return taken


async def _dispatch(events: Iterator[SnapshotEvent], taken: Taken, assembler: Assembler) -> None:
    # One event at a time: a few hostile bytes can decode to far more than fits in memory.
    while (event := await asyncio.to_thread(next, events, None)) is not None:
        if isinstance(event, MessageBatch):
            await assembler.add(event)
        elif isinstance(event, ConsumerEvent):
            if event.record.name in taken.consumers:
                raise _twice(event.record.name)
            taken.consumers[event.record.name] = event.record
        elif isinstance(event, DeletedEvent):
            taken.dead |= event.sequences
        elif isinstance(event, StateEvent):
            taken.state = event.state
            assembler.release()  # an archive holds live messages only


def _twice(name: str) -> BadDataError:
    return BadDataError(
        f"the snapshot holds the consumer {name[:80]} twice",
        code="data.snapshot-consumer",
        means="no server writes this; nothing of this snapshot was used",
        hint="take the snapshot again; for a stored one, look for another copy",
    )
