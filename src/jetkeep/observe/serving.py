"""Serve metrics to scrapes, of which none makes work of its own, and say whether all is well."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from jetkeep.errors import UsageError
from jetkeep.observe.families import exposition

if TYPE_CHECKING:
    from jetkeep.observe.observation import Observation

#: Why something is not as it should be; empty when it is.
Complaint = Callable[[], Awaitable[str]]


class Newest:
    """The text of the last look; scrapes that come together share one.

    Args:
        look: asks the repositories.
        every_s: they are asked at most every so many seconds.
        more: lines that are of this moment, behind those of the look.
    """

    def __init__(
        self, look: Callable[[], Awaitable[Observation]], every_s: float, more: Callable[[], bytes] = lambda: b""
    ) -> None:
        self._look, self._every_s, self._more = look, every_s, more
        self._text, self._until = b"", 0.0
        self._lock = asyncio.Lock()

    async def text(self) -> bytes:
        """The text format of Prometheus."""
        async with self._lock:
            if time.monotonic() >= self._until:
                self._text = exposition(await self._look())
                self._until = time.monotonic() + self._every_s
            return self._text + self._more()


def address_of(text: str) -> tuple[str, int]:
    """Host and port of `host:port` or `:port`.

    Raises:
        UsageError: it is neither.
    """
    host, _, port = text.rpartition(":")
    if not port.isdecimal() or int(port) > 65535:
        raise UsageError(f"'{text}' is no address", code="usage.address", hint="for instance 0.0.0.0:9750")
    return host.strip("[]") or "0.0.0.0", int(port)  # noqa: S104 - what scrapes must reach; the caller says where


async def _nothing() -> str:
    return ""


@asynccontextmanager
async def serving(
    address: tuple[str, int], newest: Newest, *, healthy: Complaint = _nothing, ready: Complaint = _nothing
) -> AsyncIterator[str]:
    """Answer /metrics, /healthz and /readyz while the block runs; gives the URL.

    Raises:
        UsageError: the address cannot be used.
    """
    from aiohttp import web  # noqa: PLC0415 - only who serves loads it

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=await newest.text(), content_type="text/plain", charset="utf-8")

    def probe(complaint: Complaint) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def answer(_: web.Request) -> web.Response:
            why = await complaint()
            return web.Response(text=f"{why or 'ok'}\n", status=503 if why else 200)

        return answer

    app = web.Application()
    app.add_routes(
        [web.get("/metrics", metrics), web.get("/healthz", probe(healthy)), web.get("/readyz", probe(ready))]
    )
    runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1)
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
        yield f"http://{host}:{port}"
    finally:
        await runner.cleanup()
