"""Send a stream's snapshot to a server: several chunks in flight, every answer looked at."""

from __future__ import annotations

import asyncio
import json
import time
from types import TracebackType
from typing import Any, Self

from jetkeep.errors import ApiError, ServerError
from jetkeep.jetstream.api import JetStream
from jetkeep.jetstream.client import status_of
from jetkeep.jetstream.watch import NOTICE_S
from jetkeep.model import JsonDict

CHUNK_BYTES = 512 * 1024
CHUNKS_IN_FLIGHT = 16
#: The server drops a restore silently after 5 s without a chunk; an acknowledgement that takes longer than this never comes.
ACK_S = 15.0
#: After the last chunk the server moves and indexes everything: this long, and a second for every 10 MB.
FINISH_S, FINISH_BYTES_S = 60.0, 10_000_000
#: For so long nobody may listen for the first chunk.
KNOCK_S = 3.0


class RestoreSender:
    """`async with` asks for the restore; `send` its bytes; `finish` ends it and gives the stream's info.

    `accepted` says whether the server took the request: only then may there be something to delete after a failure. Leaving the
    block without `finish` abandons the restore; the caller deletes what a failed restore leaves (FORMATS of 2.15: a live
    partial stream).

    Raises:
        ApiError: the server refused, or said at some point that it failed.
        ServerError: it does not answer, or the connection was lost.
    """

    def __init__(self, js: JetStream, stream: str, config: JsonDict, state: JsonDict) -> None:
        self._js, self._stream = js, stream
        self._body = {"config": config, "state": state}
        self._subject = ""
        self._progress = asyncio.Event()
        self._failure: ServerError | None = None
        self._subscription: Any = None
        self._inbox = ""
        self._sent = self._acked = 0
        self._last_ack = 0.0
        self._unheard = False
        self._lost = js.watch.disconnects
        self.accepted = False
        self.bytes_sent = 0

    async def __aenter__(self) -> Self:
        answer = await self._js.request(f"STREAM.RESTORE.{self._stream}", self._body)
        self.accepted = True
        self._subject = answer["deliver_subject"]
        self._inbox = self._js.client.new_inbox()
        self._subscription = await self._js.subscribe(self._inbox, self._acknowledged)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._subscription is not None:
            await self._js.unsubscribe(self._subscription)

    async def send(self, data: bytes | bytearray | memoryview) -> None:
        """Send the next bytes; returns when they are on their way and fewer than CHUNKS_IN_FLIGHT chunks wait.

        Between two calls no more than 5 s may pass: the server drops a restore that nobody feeds.
        """
        view = memoryview(data)
        size = min(CHUNK_BYTES, self._js.max_payload - 1024)
        for at in range(0, len(view), size):
            await self._until_waiting(CHUNKS_IN_FLIGHT - 1)
            chunk = bytes(view[at : at + size])
            self.bytes_sent += len(chunk)
            if not self._sent:
                await self._knock(chunk)
                continue
            self._sent += 1
            await self._js.publish(self._subject, chunk, self._inbox)

    async def _knock(self, chunk: bytes) -> None:
        """Send the first chunk until it is taken: in a cluster the server's answer can be quicker than its interest."""
        deadline = time.monotonic() + KNOCK_S
        while True:
            self._sent += 1
            await self._js.publish(self._subject, chunk, self._inbox)
            try:
                return await self._until_waiting(0)
            except ServerError:
                if not self._unheard or time.monotonic() > deadline:
                    raise
                self._failure, self._unheard = None, False
                await asyncio.sleep(0.05)

    async def finish(self) -> JsonDict:
        """Say that this was all; returns the info of the restored stream once the server has it."""
        await self._until_waiting(0)
        limit = FINISH_S + self.bytes_sent / FINISH_BYTES_S
        try:
            answer: JsonDict = json.loads(await self._js.ask(self._subject, b"", timeout_s=limit))
        except ServerError as failure:
            if failure.code == "nats.no-jetstream":
                raise self._gone("the server does not listen any more") from None
            raise
        if error := answer.get("error"):
            raise self._refused(error)
        return answer

    async def _until_waiting(self, most: int) -> None:
        """Return when at most that many chunks are not acknowledged."""
        began = time.monotonic()
        while self._failure is None and self._sent - self._acked > most:
            self._progress.clear()
            try:
                async with asyncio.timeout(NOTICE_S):
                    await self._progress.wait()
            except TimeoutError:
                if trouble := self._js.watch.trouble(self._lost, self._subject, self._inbox):
                    raise trouble from None
                if time.monotonic() - max(began, self._last_ack) > ACK_S:
                    raise self._gone(f"no acknowledgement came for {ACK_S:g} s") from None
        if self._failure is not None:
            raise self._failure

    async def _acknowledged(self, message: Any) -> None:
        self._acked += 1
        self._last_ack = time.monotonic()
        status, words = status_of(message)
        self._unheard = status == "503"
        if status:
            self._failure = self._gone(
                "the server does not listen any more" if status == "503" else f"{status} {words}"
            )
        elif message.data:
            self._failure = self._refused(_error_in(message.data))
        self._progress.set()

    def _refused(self, error: JsonDict) -> ApiError:
        return ApiError(
            f"the server could not restore {self._stream}: {error.get('description', error)}",
            status=int(error.get("code", 0)),
            err_code=int(error.get("err_code", 0)),
            means="the stream is not restored",
        )

    def _gone(self, why: str) -> ServerError:
        return ServerError(
            f"the restore of {self._stream} was dropped by the server: {why}",
            code="nats.restore-dropped",
            means="the stream is not restored",
            hint="look at the server's log; it gives a restore up after 5 s without data",
            retryable=True,
        )


def _error_in(answer: bytes) -> JsonDict:
    try:
        error: JsonDict = json.loads(answer)["error"]
    except (ValueError, KeyError, TypeError):
        return {"description": answer.decode(errors="replace")}
    return error
