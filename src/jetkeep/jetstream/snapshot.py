"""Receive a stream's snapshot: every chunk acknowledged in time, however slow the reader is."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from types import TracebackType
from typing import Self

from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from jetkeep.errors import ApiError, ServerError
from jetkeep.jetstream.api import JetStream
from jetkeep.jetstream.client import status_of
from jetkeep.jetstream.listing import STREAM_NOT_FOUND
from jetkeep.jetstream.watch import NOTICE_S
from jetkeep.model import JsonDict

CHUNK_BYTES = 512 * 1024
#: What servers up to 2.11 send ahead of acknowledgements whatever was asked for, later ones by default.
WINDOW_BYTES = 8 * 1024 * 1024
#: Received and not yet read bytes from which on acknowledgements wait for the reader.
BUFFER_BYTES = 16 * 1024 * 1024
#: The server gives a snapshot up after 5 s without room in its window (2 s up to 2.11): while the reader is slow, this
#: often some room is made all the same, until OVERRUN_BYTES wait.
KEEP_ALIVE_S = 1.0
OVERRUN_BYTES = 64 * 1024 * 1024
#: Nothing came for so long: ask whether the server and the stream are still there. A slow disk may take longer.
QUIET_S = 3.0
STALL_S = 30.0
REFUSED_S = 0.75


class SnapshotReceiver:
    """`async with` asks for the snapshot; then `config` and `state` are the server's, and iterating gives its bytes.

    Memory: BUFFER_BYTES and the server's window (8 MiB), at most OVERRUN_BYTES while the reader stalls.

    Raises (from the context's begin and the iteration):
        ApiError: the server refused, for instance another snapshot of the stream runs (10064).
        ServerError: it failed, stalled, or the connection was lost; what was received is useless.
    """

    def __init__(self, js: JetStream, stream: str, chunk_bytes: int = CHUNK_BYTES, window_bytes: int = 0) -> None:
        self._js, self._stream = js, stream
        self._options = {"chunk_size": chunk_bytes, **({"window_size": window_bytes} if window_bytes else {})}
        self._chunks: deque[bytes] = deque()
        self._arrived = asyncio.Event()
        #: Bytes that were received and not yet read.
        self.buffered = 0
        #: Chunks without acknowledgement: where it goes and the chunk's size; `_held` is the sum.
        self._acks: deque[tuple[str, int]] = deque()
        self._held = 0
        self._ended = False
        self._failure: ServerError | None = None
        self._last_arrival = self._last_ack = time.monotonic()
        self._keeper: asyncio.Task[None] | None = None
        self._subscription: Subscription | None = None
        self._lost = js.watch.disconnects
        self._ack_subject = f"$JS.SNAPSHOT.ACK.{stream}.>"
        self.config: JsonDict = {}
        self.state: JsonDict = {}

    async def __aenter__(self) -> Self:
        inbox = self._js.client.new_inbox()
        # The literal subject, before the request: a wildcard inbox costs seconds, a late one the first chunks.
        self._subscription = await self._js.subscribe(inbox, self._receive)
        try:
            answer = await self._js.request(
                f"STREAM.SNAPSHOT.{self._stream}", {"deliver_subject": inbox, "jsck": False, **self._options}
            )
        except BaseException:
            await self._js.unsubscribe(self._subscription)
            raise
        self.config, self.state = answer["config"], answer["state"]
        self._last_arrival = self._last_ack = time.monotonic()
        self._keeper = asyncio.create_task(self._keep())
        self._keeper.add_done_callback(lambda _: self._arrived.set())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._keeper is not None
        assert self._subscription is not None
        self._keeper.cancel()
        await asyncio.gather(self._keeper, return_exceptions=True)
        # The server then ends an unfinished snapshot at its next chunk.
        await self._js.unsubscribe(self._subscription)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        while not self._chunks:
            if self._failure:
                raise self._failure
            if self._ended:
                raise StopAsyncIteration
            if self._keeper is not None and self._keeper.done():
                # Nobody looks after the flow any more: why, is the error.
                self._keeper.result()
            self._arrived.clear()
            await self._arrived.wait()
        chunk = self._chunks.popleft()
        self.buffered -= len(chunk)
        while self._acks and self.buffered < BUFFER_BYTES:
            await self._acknowledge()
        return chunk

    async def _receive(self, message: Msg) -> None:
        self._last_arrival = time.monotonic()
        if not message.data and not message.reply:
            self._end(*status_of(message))
        else:
            self._chunks.append(message.data)
            self.buffered += len(message.data)
            if message.reply:
                self._acks.append((message.reply, len(message.data)))
                self._held += len(message.data)
                if self.buffered < BUFFER_BYTES:
                    await self._acknowledge()
        self._arrived.set()

    async def _acknowledge(self) -> None:
        self._last_ack = time.monotonic()
        reply, size = self._acks.popleft()
        self._held -= size
        await self._js.publish(reply)

    def _end(self, status: str, words: str) -> None:
        # Servers from 2.12 on send no header where the whole snapshot was smaller than one chunk.
        if status in ("", "204"):
            self._ended = True
            return
        self._fail(
            f"the server ended the snapshot of {self._stream}: {status} {words}".rstrip(),
            "a 408 means that acknowledgements did not reach it in time: the network, a denied publish to "
            "$JS.SNAPSHOT.ACK.>, or a store that is far too slow",
        )

    def _fail(self, what: str, hint: str) -> None:
        self._failure = self._js.watch.denied(self._ack_subject) or ServerError(
            what,
            code="nats.snapshot",
            means="nothing of this stream was stored in this run; earlier backups of it are untouched",
            hint=hint,
            retryable=True,
        )
        self._arrived.set()

    async def _keep(self) -> None:
        """Keep the server's flow alive while the reader is slow; notice when the server is gone."""
        asked = 0.0
        while True:
            await asyncio.sleep(NOTICE_S)
            now = time.monotonic()
            if self._ended or self._failure:
                return
            # A small snapshot is whole although its acknowledgements were refused: so only once nothing more comes.
            quiet = now - self._last_arrival > REFUSED_S
            if trouble := self._js.watch.trouble(self._lost, self._ack_subject if quiet else ""):
                self._failure = trouble
                self._arrived.set()
            elif self._acks:
                if now - self._last_ack >= KEEP_ALIVE_S and self.buffered < OVERRUN_BYTES:
                    await self._make_room()
            elif now - self._last_arrival > STALL_S:
                self._fail(
                    f"the server sent nothing of the snapshot of {self._stream} for {STALL_S:g} s",
                    "look at the server and the network, then run the backup again",
                )
            elif now - max(self._last_arrival, asked) > QUIET_S:
                await self._look()
                asked = time.monotonic()

    async def _make_room(self) -> None:
        await self._acknowledge()
        # Servers up to 2.11 go on when less than a window waits, not at every acknowledgement.
        while self._acks and self._held >= WINDOW_BYTES:
            await self._acknowledge()

    async def _look(self) -> None:
        """Nothing came for a while: is there still anybody to send it?"""
        try:
            await self._js.stream_info(self._stream)
        except ApiError as failure:
            if failure.err_code != STREAM_NOT_FOUND:
                raise
            self._fail(f"stream {self._stream} was deleted while its snapshot was sent", "run the backup again")
