"""A TCP proxy before a real server that counts what a client asks, and kills the client at the n-th of it."""

from __future__ import annotations

import asyncio
import subprocess
from contextlib import suppress
from types import TracebackType
from typing import Self

#: What a client asks a server; CONNECT, PING and PONG are no calls.
CALLS = (b"PUB", b"HPUB", b"SUB", b"UNSUB")
_LINE = 64 * 1024


class KillingProxy:
    """`async with KillingProxy(server.url) as proxy:` passes everything on; `arm` says when it kills.

    Attributes:
        url: where the client connects.
        calls: operation and subject of every call so far, in their order; the one at which it was killed is the last.
        killed: whether the client was killed here.
    """

    def __init__(self, url: str) -> None:
        host, port = url.removeprefix("nats://").rsplit(":", 1)
        self._server = host, int(port)
        self._links: set[asyncio.Task[None]] = set()
        self._client: subprocess.Popen[str] | None = None
        self._at, self._passed_on, self._only = 0, False, ""
        self.url = ""
        self.calls: list[str] = []
        self.killed = False

    async def __aenter__(self) -> Self:
        self._listener = await asyncio.start_server(self._connected, "127.0.0.1", 0, limit=_LINE)
        self.url = f"nats://127.0.0.1:{self._listener.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.close()
        for link in self._links:
            link.cancel()
        await asyncio.gather(*self._links, return_exceptions=True)

    def arm(self, client: subprocess.Popen[str], at: int, *, passed_on: bool, only: str = "") -> None:
        """Kill this process at call number `at`, counted from 1: once the call was passed on to the server, or before.

        `only`: count only calls that begin so, as they stand in `calls`.
        """
        self._client, self._at, self._passed_on, self._only = client, at, passed_on, only
        self.calls, self.killed = [], False

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = asyncio.current_task()
        assert link
        self._links.add(link)
        up_reader, up_writer = await asyncio.open_connection(*self._server)
        down = asyncio.ensure_future(_copy(up_reader, writer))
        try:
            with suppress(OSError, asyncio.IncompleteReadError):
                await self._upwards(reader, up_writer)
        finally:
            # The server has what was passed on before it learns that the client is gone, as if this were the client.
            down.cancel()
            for each in (up_writer, writer):
                each.close()
            self._links.discard(link)

    async def _upwards(self, reader: asyncio.StreamReader, server: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            words = line.split()
            operation = words[0].upper()
            body = await reader.readexactly(int(words[-1]) + 2) if operation in (b"PUB", b"HPUB") else b""
            last = operation in CALLS and self._is_the_one(f"{operation.decode()} {words[1].decode()}")
            if not self.killed and (not last or self._passed_on):
                server.write(line + body)
                await server.drain()
            if last and self._client:
                self.killed = True
                self._client.kill()
            if self.killed:
                return

    def _is_the_one(self, call: str) -> bool:
        self.calls.append(call)
        return self._at > 0 and sum(1 for one in self.calls if one.startswith(self._only)) == self._at


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(256 * 1024):
            writer.write(data)
            await writer.drain()
        writer.close()
