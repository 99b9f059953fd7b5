"""Send a stream to the server: read, pack and send at the same time, in bounded memory."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from jetkeep.catalog import live_batches
from jetkeep.codecs.archive import ArchiveEncoder
from jetkeep.codecs.batch import MessageBatch
from jetkeep.codecs.msgblock import TarEncoder
from jetkeep.codecs.s2 import S2Encoder
from jetkeep.errors import ApiError, CannotRestoreError, ServerError
from jetkeep.jetstream import JetStream
from jetkeep.model import Emit, JsonDict, StreamAdvanced
from jetkeep.repository.repository import Repository
from jetkeep.restore.cancelling import to_its_end
from jetkeep.restore.decisions import Step
from jetkeep.restore.forecast import too_large

#: A server gives a restore up after 5 s without a chunk; a skippable frame keeps it when the repository is slow.
PATIENCE_S = 2.0
SKIPPABLE_FRAME = b"\xfe\x00\x00\x00"
#: One stored byte under a checksum that is not its own.
BROKEN_FRAME = b"\x01\x05\x00\x00\x00\x00\x00\x00!"
BREAK_OFF_S = 5.0
#: Snappy packs about 300 MB a second and core: chunks are sent as they are unless the way to the server is slower than
#: this (bytes a second), seen once so many bytes were sent.
WORTH_PACKING = 150_000_000
SEEN_BYTES = 16 * 1024 * 1024
#: Packed pieces that wait for the server.
PIECES_AHEAD = 2


@dataclass(slots=True)
class Progress:
    """How far the server was asked: `requested` a restore, `accepted` by it, `ended`: it may make the stream at any time."""

    requested: bool = False
    accepted: bool = False
    ended: bool = False


@dataclass(slots=True)
class Sent:
    """What was sent, and the seconds in which nothing but the repository was waited for."""

    info: JsonDict
    messages: int = 0
    left_out: int = 0
    seconds: dict[str, float] = field(default_factory=dict)


async def send(
    repository: Repository,
    js: JetStream,
    step: Step,
    config: JsonDict,
    *,
    emit: Emit,
    progress: Progress,
    turn: asyncio.Semaphore,
) -> Sent:
    """Restore the messages of `step` under `config`; on return the server says that it has them, which is not proof.

    `progress` tells at any moment whether there may be something of this restore at the server. `turn` is held from the
    request to the server's last word.

    Raises:
        BadDataError: the repository's bytes are not what they must be.
        ServerError: the server refused or failed.
        CannotRestoreError: a message is larger than the target's storage can hold.
    """
    packer = _Packer(step, config)
    began = time.monotonic()
    pieces: asyncio.Queue[bytes | None] = asyncio.Queue(PIECES_AHEAD)
    packing = asyncio.create_task(_pack(repository, packer, pieces, step.name, emit))
    try:
        first = await _next(pieces, packing)
        fetched = time.monotonic() - began
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(turn)
            progress.requested = True
            sink = js.restore(step.name, config, request_state(step))
            stack.push_async_exit(sink)
            try:
                await to_its_end(sink.__aenter__())
                piece: bytes | None = first
                while piece is not None:
                    await packer.adapt(sink.send(piece), len(piece))
                    while (piece := await _next(pieces, packing, PATIENCE_S)) == b"":
                        await sink.send(SKIPPABLE_FRAME)
            except BaseException:
                if sink.accepted:
                    progress.ended = True
                    progress.ended = not await to_its_end(_break_off(sink))
                raise
            finally:
                progress.accepted = sink.accepted
            progress.ended = True
            try:
                info = await sink.finish()
            except ApiError:
                progress.ended = False
                raise
    finally:
        packing.cancel()
        await asyncio.gather(packing, return_exceptions=True)
    seconds = {"fetch": fetched, "send": time.monotonic() - began - fetched}
    return Sent(info, packer.messages, packer.left_out, seconds)


async def _break_off(sink: Any) -> bool:
    """Make the server give the restore up now; true when it says that it did.

    It would notice only after 5 s, and on some versions a cluster then deletes what has the name by that time, be it
    the stream of the next, good restore.
    """
    try:
        async with asyncio.timeout(BREAK_OFF_S):
            await sink.send(BROKEN_FRAME)
            await sink.finish()
    except ApiError:
        return True
    except (ServerError, TimeoutError):
        return False
    return False


async def _next(
    pieces: asyncio.Queue[bytes | None], packing: asyncio.Task[None], patience: float | None = None
) -> bytes | None:
    """The next piece, None at the end, b"" when none came in time; raises what the packing raised."""
    getting = asyncio.ensure_future(pieces.get())
    try:
        await asyncio.wait({getting, packing}, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
        if not getting.done() and not packing.done():
            return b""
        if not getting.done() and pieces.empty():
            packing.result()
        return await getting
    finally:
        getting.cancel()


async def _pack(
    repository: Repository, packer: _Packer, pieces: asyncio.Queue[bytes | None], name: str, emit: Emit
) -> None:
    messages = size = 0
    await pieces.put(await asyncio.to_thread(packer.begin))
    async for batch in live_batches(repository, packer.step.manifest):
        packed = await asyncio.to_thread(packer.messages_of, batch)
        if packed:
            await pieces.put(packed)
        messages += len(batch)
        size += batch.raw_bytes
        emit(StreamAdvanced(name, "restore", messages, size))
    async for packed in _in_thread(packer.end()):
        await pieces.put(packed)
    await pieces.put(None)


async def _in_thread(pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
        yield piece


class _Packer:
    """Batches in, S2 frames of the chosen form out."""

    def __init__(self, step: Step, config: JsonDict) -> None:
        self.step = step
        self.messages = self.left_out = 0
        self._s2 = S2Encoder(compress=False)
        self._sent, self._blocked = 0, 0.0
        self._tar = TarEncoder(step.name, config, step.manifest.created_at) if step.writer == "tar" else None
        self._archive = ArchiveEncoder() if step.writer == "archive" else None

    async def adapt(self, sending: Awaitable[None], size: int) -> None:
        """Send, and pack what follows when the way there turns out to be slow."""
        began = time.monotonic()
        await sending
        self._blocked += time.monotonic() - began
        self._sent += size
        if not self._s2.compress and self._sent >= SEEN_BYTES:
            self._s2.compress = self._sent < self._blocked * WORTH_PACKING
            self._sent, self._blocked = 0, 0.0

    def begin(self) -> bytes:
        if self._tar:
            return self._s2.encode(self._tar.begin())
        assert self._archive
        return self._s2.encode(self._archive.begin(request_state(self.step), list(self.step.consumers)))

    def messages_of(self, batch: MessageBatch) -> bytes:
        kept = self._within(batch)
        self.messages += len(kept)
        encoder = self._tar or self._archive
        assert encoder
        packed = encoder.messages(kept) if len(kept) else b""
        return self._s2.encode(packed) if packed else b""

    def end(self) -> Iterator[bytes]:
        if self._tar:
            for part in self._tar.end(self.step.manifest.last_seq, self.step.consumers):
                if part:
                    yield self._s2.encode(part)
            return
        assert self._archive
        yield self._s2.encode(self._archive.end())

    def _within(self, batch: MessageBatch) -> MessageBatch:
        """Without the messages that the target cannot hold, where the plan has told so."""
        large = too_large(self.step.rules, batch)
        if not large:
            return batch
        if not self.step.forecast.oversize:
            raise CannotRestoreError(
                f"message {batch.seq[min(large)]} of {self.step.manifest.stream} is too large for the target",
                code="restore.loss-message-size",
                means="the stream was not restored; what was sent of it is removed",
                hint="`jetkeep cat` prints it",
            )
        self.left_out += len(large)
        return batch.select([at for at in range(len(batch)) if at not in large])


def request_state(step: Step) -> JsonDict:
    """The state that goes with the request: what the server reserves before it takes anything."""
    manifest = step.manifest
    return {
        "messages": manifest.messages,
        "bytes": step.forecast.bytes,
        "first_seq": manifest.first_seq,
        "last_seq": manifest.last_seq,
        "first_ts": rfc3339(manifest.first_ts_ns),
        "last_ts": rfc3339(manifest.last_ts_ns),
        "consumer_count": len(step.consumers),
    }


def rfc3339(ns: int) -> str:
    """A time as servers write it, to the nanosecond; 0 is the zero time of the servers."""
    if not ns:
        return "0001-01-01T00:00:00Z"
    seconds, rest = divmod(ns, 1_000_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:09d}Z"
