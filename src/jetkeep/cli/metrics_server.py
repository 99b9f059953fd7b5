"""Serve metrics to scrapes, of which none makes work of its own."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from jetkeep.errors import UsageError

if TYPE_CHECKING:
    from aiohttp import web

    from jetkeep.observe import Observation


def address_of(text: str) -> tuple[str, int]:
    """Host and port of `host:port` or `:port`.

    Raises:
        UsageError: it is neither.
    """
    host, _, port = text.rpartition(":")
    if not port.isdecimal() or int(port) > 65535:
        raise UsageError(f"'{text}' is no address", code="usage.address", hint="for instance 0.0.0.0:9750")
    return host.strip("[]") or "0.0.0.0", int(port)  # noqa: S104 - what a scrape must reach; the caller says where


async def serve(address: tuple[str, int], every_s: float, look: Callable[[], Awaitable[Observation]]) -> None:
    """Answer /metrics and /healthz until cancelled; the repositories are asked at most every so many seconds.

    Raises:
        UsageError: the address cannot be used.
    """
    from aiohttp import web

    newest = _Newest(look, every_s)

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=await newest.text(), content_type="text/plain", charset="utf-8")

    async def healthy(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    app = web.Application()
    app.add_routes([web.get("/metrics", metrics), web.get("/healthz", healthy)])
    runner = web.AppRunner(app, access_log=None, handle_signals=False)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, *address).start()
        except OSError as failure:
            raise UsageError(
                f"cannot listen at {address[0]}:{address[1]}: {failure.strerror or failure}",
                code="usage.address",
                hint="another process has it, or this user may not: choose another port",
            ) from None
        host, port = runner.addresses[0][:2]
        sys.stderr.write(f"metrics at http://{host}:{port}/metrics\n")
        await asyncio.Event().wait()
    finally:
        await runner.cleanup()


class _Newest:
    """The text of the last look; scrapes that come together share one."""

    def __init__(self, look: Callable[[], Awaitable[Observation]], every_s: float) -> None:
        self._look, self._every_s = look, every_s
        self._text, self._until = b"", 0.0
        self._lock = asyncio.Lock()

    async def text(self) -> bytes:
        from jetkeep.observe import exposition

        async with self._lock:
            if time.monotonic() >= self._until:
                self._text = exposition(await self._look())
                self._until = time.monotonic() + self._every_s
            return self._text
