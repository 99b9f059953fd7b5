"""How many requests the commands make: what docs/reference/stores.md says, and not more."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.backing_up import run
from tests.conftest import StartServer
from tests.object_stores.proxy import Proxy
from tests.object_stores.seaweed import Bucket
from tests.publisher import Publisher

PAGE = Path(__file__).parents[2] / "docs/reference/stores.md"
STREAMS = 6


@pytest.fixture
def proxy(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    with Proxy(bucket.server.endpoint) as between:
        monkeypatch.setenv("AWS_ENDPOINT_URL", between.endpoint)
        yield between


def promised(command: str) -> int:
    """The page's number for so many streams of a segment each: `15 + 3 for each stream`."""
    (row,) = re.findall(rf"\| {re.escape(command)} \| (\d+)(?: \+ (\d+) for each stream)?", PAGE.read_text())
    return int(row[0]) + int(row[1] or 0) * STREAMS


async def fill(url: str, *, create: bool) -> None:
    async with Publisher(url) as publisher:
        for at in range(STREAMS):
            if create:
                await publisher.create(f"S{at}", storage="file")
            await publisher.store_all((f"S{at}.x", b"message %d" % one, b"") for one in range(5))


def test_no_command_makes_more_requests_than_are_documented(
    start_server: StartServer, bucket: Bucket, proxy: Proxy
) -> None:
    server, target = asyncio.run(start_server()), asyncio.run(start_server())

    def count(name: str, *words: str, url: str = "") -> None:
        proxy.forget()
        run(*words, repo=bucket.url, url=url)
        made = sum(proxy.counted().values())
        assert made <= promised(name), (name, made, proxy.counted(), [one[1:3] for one in proxy.seen])

    asyncio.run(fill(server.url, create=True))
    count("the first `backup`", "backup", url=server.url)
    count("`backup`, nothing changed", "backup", url=server.url)
    asyncio.run(fill(server.url, create=False))
    count("`backup`, every stream changed", "backup", url=server.url)
    count("`info`", "info")
    count("`info LABEL`", "info", "latest")
    count("`cat`", "cat", "S0", "--limit", "1")
    count("`restore`", "restore", url=target.url)
