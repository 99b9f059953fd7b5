"""Turn a run of messages into stored segments, encoding while more is read, in bounded memory."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING

from jetkeep.codecs.batch import MessageBatch
from jetkeep.codecs.fingerprint import Fingerprint
from jetkeep.codecs.sequences import SequenceSet
from jetkeep.model import Emit, StreamAdvanced
from jetkeep.repository.documents import SegmentRef
from jetkeep.repository.fanout import FanOut

if TYPE_CHECKING:
    from jetkeep.codecs.segment import SegmentBytes, SegmentWriter

#: Raw bytes of a segment (see docs/format.md); a message larger than that has a segment of its own.
SEGMENT_BYTES = 32 * 1024 * 1024
#: Stored bytes that are on their way to a store where each request waits for its answer; one is always allowed.
UPLOADING_BYTES = 24 * 1024 * 1024


@dataclass(slots=True)
class Assembled:
    """What was stored of one stream: `rows` are the sequences of all live rows."""

    segments: list[SegmentRef] = field(default_factory=list)
    rows: SequenceSet = field(default_factory=SequenceSet)

    @property
    def messages(self) -> int:
        """How many live rows there are."""
        return sum(one.count for one in self.segments)

    @property
    def raw_bytes(self) -> int:
        """Raw bytes of the live rows (docs/format.md)."""
        return sum(one.raw_bytes for one in self.segments)

    @property
    def stored_bytes(self) -> int:
        """Bytes of the segments' objects."""
        return sum(one.bytes for one in self.segments)

    @property
    def fingerprint(self) -> str:
        """The fingerprint of all live rows."""
        total = Fingerprint()
        for one in self.segments:
            total += Fingerprint.of_hex(one.fingerprint, one.count)
        return total.hex()


class Assembler:
    """An async context that takes batches in rising order and stores segments.

    `add` returns as soon as the encoder has room: at most two batches wait, one segment is built, and one is being stored,
    or as many as fit into UPLOADING_BYTES where the store is far. Until `release` the newest segment is held back as well, so that rows which turn out dead at the
    end of a snapshot of blocks cost a small stream no second object.

    Raises (from `add`, `finish` and the context's end):
        StoreError: a segment could not be stored.
    """

    def __init__(
        self, repository: FanOut, source: str, stream: str, timeline: str, emit: Emit, phase: str = "backup"
    ) -> None:
        self._put = partial(repository.put_segment, source, stream, timeline)
        self._room = UPLOADING_BYTES if repository.far else 0
        self._read = repository.read_segment
        self._stream = stream
        self._emit = emit
        self._phase = phase
        self._queue: asyncio.Queue[MessageBatch | None] = asyncio.Queue(maxsize=2)
        self._writer: SegmentWriter | None = None
        self._hold = True
        self._held: SegmentBytes | None = None
        self._puts: list[tuple[int, asyncio.Task[SegmentRef]]] = []
        self._refs: list[SegmentRef] = []
        self._ranges: list[tuple[int, int]] = []
        self._count = self._bytes = 0
        self._worker: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Assembler:
        self._worker = asyncio.create_task(self._encode())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        tasks = [*([self._worker] if self._worker else []), *(task for _, task in self._puts)]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def add(self, batch: MessageBatch) -> None:
        """Hand over the next rows; their sequences are above all before."""
        assert self._worker
        put = asyncio.ensure_future(self._queue.put(batch))
        await asyncio.wait({put, self._worker}, return_when=asyncio.FIRST_COMPLETED)
        if self._worker.done():
            put.cancel()
            self._worker.result()
        await put

    def release(self) -> None:
        """No row can turn out dead any more: hold nothing back."""
        self._hold = False

    async def finish(self, dead: SequenceSet | None = None) -> Assembled:
        """Store what is left, without the rows in `dead`; every segment is in the store on return.

        Durability comes with the repository's next `sync` (a commit does it).
        """
        assert self._worker
        await self._queue.put(None)
        await self._worker
        rows = SequenceSet.from_ranges(self._ranges)
        if dead:
            await self._drop(dead)
            rows -= dead
        await self._store_held()
        await self._settle(0)
        return Assembled(self._refs, rows)

    async def _encode(self) -> None:
        while (batch := await self._queue.get()) is not None:
            self._note(batch)
            if self._writer is None:
                self._writer = await asyncio.to_thread(_new_writer)
            await asyncio.to_thread(self._writer.add, batch)
            if self._writer.raw_bytes >= SEGMENT_BYTES:
                await self._close_segment(self._writer)
        if self._writer is not None:
            await self._close_segment(self._writer)

    async def _close_segment(self, writer: SegmentWriter) -> None:
        self._writer = None
        segment = await asyncio.to_thread(writer.finish)
        await self._store_held()
        self._held = segment
        if not self._hold:
            await self._store_held()

    async def _store_held(self) -> None:
        """Start storing the held segment while the next one is built."""
        segment, self._held = self._held, None
        if segment is None:
            return
        size = len(segment.data)
        await self._settle(max(self._room - size, 0))
        self._puts.append((size, asyncio.create_task(self._put(segment))))

    async def _settle(self, most: int) -> None:
        """Wait until at most so many bytes are on their way; segments are noted in their order."""
        while self._puts and (sum(size for size, _ in self._puts) > most or self._puts[0][1].done()):
            _, task = self._puts[0]
            self._refs.append(await task)
            del self._puts[0]

    def _note(self, batch: MessageBatch) -> None:
        for first, last in batch.ranges():
            if self._ranges and self._ranges[-1][1] + 1 == first:
                self._ranges[-1] = (self._ranges[-1][0], last)
            else:
                self._ranges.append((first, last))
        self._count += len(batch)
        self._bytes += batch.raw_bytes
        self._emit(StreamAdvanced(self._stream, self._phase, self._count, self._bytes))

    async def _drop(self, dead: SequenceSet) -> None:
        await self._settle(0)
        if self._held is not None and dead.intersects(self._held.first_seq, self._held.last_seq):
            self._held = await asyncio.to_thread(without, self._held.data, dead)
        kept: list[SegmentRef] = []
        for ref in self._refs:
            if not dead.intersects(ref.first_seq, ref.last_seq):
                kept.append(ref)
                continue
            # The unfiltered object stays behind, named by nothing: another backup of an earlier moment may
            # have found it good and use it, so only `expire` may delete it.
            data = await self._read(ref)
            filtered = await asyncio.to_thread(without, data, dead)
            if filtered is not None:
                kept.append(await self._put(filtered))
        self._refs = kept


def _new_writer() -> SegmentWriter:
    # Loading Arrow takes a while: in a thread, while the first bytes are on their way.
    from jetkeep.codecs.segment import SegmentWriter  # noqa: PLC0415

    return SegmentWriter()


def without(data: bytes | memoryview, dead: SequenceSet) -> SegmentBytes | None:
    """A segment's rows that are not in `dead`, as a new segment; None when no row is left."""
    from jetkeep.codecs.segment import SegmentReader  # noqa: PLC0415 - as above

    writer = _new_writer()
    for batch in SegmentReader(data):
        keep = [at for at, seq in enumerate(batch.seq) if seq not in dead]
        if len(keep) == len(batch):
            writer.add(batch)
        elif keep:
            writer.add(batch.select(keep))
    return writer.finish() if writer.raw_bytes else None
