"""A bad line to a real store: an HTTP proxy that delays, throttles, stalls, refuses, cuts and resets, and counts requests.

    with Proxy(seaweed.endpoint) as proxy:
        proxy.latency_s, proxy.bytes_per_s = 0.2, 1e6
        proxy.faults = lambda seen: LOSE_ANSWER if seen.method == "PUT" and seen.number < 9 else None
        ...
        assert proxy.counted()["PUT"] < 20

It runs in a thread of its own, so that a test may wait for a child process. Signatures stay valid: hosts are passed on.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
import time
import urllib.parse
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import NamedTuple, Self

_PIECE = 64 * 1024


class Seen(NamedTuple):
    """A request: the how many-th, its method (a listing's is LIST), its path with prefix, and the bytes it brings."""

    number: int
    method: str
    path: str
    size: int


@dataclass(frozen=True)
class Fault:
    """What happens to a request instead of what should.

    Attributes:
        stall_s: nothing is passed on for so long, then everything.
        status, body: this is the answer; the store sees nothing of the request.
        lost: the connection is reset at this point: "request" before the store saw any of it, "upload" when half of what it
            brings has reached the store, "answer" when the store has done all of it, "download" after half of the answer.
    """

    stall_s: float = 0.0
    status: int = 0
    body: bytes = b""
    lost: str = ""


SLOW_DOWN = Fault(
    status=503, body=b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
)
RESET = Fault(lost="request")
CUT_UPLOAD = Fault(lost="upload")
LOSE_ANSWER = Fault(lost="answer")
CUT_DOWNLOAD = Fault(lost="download")
Faults = Callable[[Seen], Fault | None]


class Proxy:
    """Between a client and the server at `upstream`.

    Attributes:
        endpoint: where it listens.
        latency_s: added to each request.
        bytes_per_s: of all connections together, for each direction; 0 is no limit.
        faults: asked for each request.
        seen: all requests so far.
    """

    def __init__(self, upstream: str) -> None:
        where = urllib.parse.urlsplit(upstream)
        assert where.hostname
        assert where.port
        self._upstream = where.hostname, where.port
        self.latency_s = 0.0
        self.bytes_per_s = 0.0
        self.faults: Faults = lambda seen: None
        self.seen: list[Seen] = []
        self._free_at = {"up": 0.0, "down": 0.0}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        listener = socket.create_server(("127.0.0.1", 0), backlog=100)
        # What waits in the system's buffers has not been throttled yet.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _PIECE)
        self._listener = listener
        self.endpoint = f"http://127.0.0.1:{listener.getsockname()[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        serving = asyncio.start_server(self._serve, sock=self._listener, limit=_PIECE)
        self._server = asyncio.run_coroutine_threadsafe(serving, self._loop).result()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def counted(self) -> Counter[str]:
        """Requests by method so far."""
        return Counter(one.method for one in self.seen)

    def forget(self) -> None:
        """Count from zero."""
        self.seen.clear()

    async def _end(self) -> None:
        self._server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # asyncio forgets it for sockets that it did not make; heads and bodies would wait 40 ms for each other.
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            while await self._one(reader, writer):
                pass
        except (OSError, asyncio.IncompleteReadError):
            _reset(writer)
        except asyncio.CancelledError:
            # The proxy ends; streams would report the cancellation as an accident.
            _reset(writer)
        finally:
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Pass on one request and its answer; whether there may be another."""
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            return False
        method, size, seen = self._note(head)
        fault = self.faults(seen) or Fault()
        await asyncio.sleep(self.latency_s + fault.stall_s)
        if fault.lost == "request":
            _reset(writer)
            return False
        if fault.status:
            await self._pass(reader, None, size, "up")
            words = f"HTTP/1.1 {fault.status} Fault\r\nContent-Type: application/xml\r\nContent-Length: {len(fault.body)}\r\n\r\n"
            writer.write(words.encode() + (b"" if method == "HEAD" else fault.body))
            await writer.drain()
            return True
        store_reader, store_writer = await asyncio.open_connection(*self._upstream, limit=_PIECE)
        try:
            store_writer.write(head)
            if b"100-continue" in head.lower():
                writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            await self._pass(reader, store_writer, size // 2 if fault.lost == "upload" else size, "up")
            if fault.lost == "upload":
                _reset(store_writer)
                _reset(writer)
                return False
            return await self._answer(store_reader, writer, method, fault)
        finally:
            store_writer.close()

    def _note(self, head: bytes) -> tuple[str, int, Seen]:
        method, target, _ = head.split(b"\r\n", 1)[0].decode().split(" ")
        path, _, query = target.partition("?")
        size = int(_header(head, b"content-length") or 0)
        asked = dict(urllib.parse.parse_qsl(query))
        listing = method == "GET" and ("list-type" in asked or asked.get("comp") == "list")
        path = urllib.parse.unquote(path) + (f"?{asked.get('prefix', '')}" if listing else "")
        self.seen.append(Seen(len(self.seen) + 1, "LIST" if listing else method, path, size))
        return method, size, self.seen[-1]

    async def _answer(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, method: str, fault: Fault
    ) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        while head.startswith(b"HTTP/1.1 100"):
            head = await reader.readuntil(b"\r\n\r\n")
        status = int(head.split(b" ", 2)[1])
        bodyless = method == "HEAD" or status in (204, 304)
        size = 0 if bodyless else int(_header(head, b"content-length") or -1)
        if bodyless:
            body = b""
        elif _header(head, b"transfer-encoding"):
            body = await _chunks(reader)
        else:
            body = await (reader.readexactly(size) if size >= 0 else reader.read())
        if fault.lost == "answer":
            _reset(writer)
            return False
        if fault.lost == "download":
            body = body[: len(body) // 2]
        writer.write(head)
        for at in range(0, len(body), _PIECE):
            await self._wait(len(body[at : at + _PIECE]), "down")
            writer.write(body[at : at + _PIECE])
            await writer.drain()
        await writer.drain()
        if fault.lost == "download":
            _reset(writer)
            return False
        return b"connection: close" not in head.lower() and (bodyless or size >= 0 or b"chunked" in head.lower())

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter | None, size: int, way: str
    ) -> None:
        while size > 0:
            piece = await reader.read(min(_PIECE, size))
            if not piece:
                raise asyncio.IncompleteReadError(b"", size)
            size -= len(piece)
            await self._wait(len(piece), way)
            if writer:
                writer.write(piece)
                await writer.drain()

    async def _wait(self, size: int, way: str) -> None:
        """A line for all: the next bytes go when those before have gone."""
        if not self.bytes_per_s:
            return
        self._free_at[way] = max(self._free_at[way], time.monotonic()) + size / self.bytes_per_s
        await asyncio.sleep(self._free_at[way] - time.monotonic())


def _header(head: bytes, name: bytes) -> bytes | None:
    for line in head.split(b"\r\n")[1:]:
        key, _, value = line.partition(b":")
        if key.strip().lower() == name:
            return value.strip()
    return None


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    """A chunked body, framing and all."""
    found = []
    while True:
        line = await reader.readuntil(b"\r\n")
        data = await reader.readexactly(int(line, 16) + 2)
        found.append(line + data)
        if len(data) == 2:
            return b"".join(found)


def _reset(writer: asyncio.StreamWriter) -> None:
    """End the connection as a crash would: no goodbye, what was not read yet is gone."""
    with contextlib.suppress(OSError):
        handle = writer.get_extra_info("socket")
        handle.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
