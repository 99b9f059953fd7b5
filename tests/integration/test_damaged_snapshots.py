"""A server's snapshot that cannot be used: the messages are read one by one, and counted."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any

import pytest

from jetkeep.errors import BadDataError
from jetkeep.jetstream import JetStream
from jetkeep.repository.documents import Manifest
from jetkeep.sandbox import Sandbox
from tests.backing_up import rows_of
from tests.conftest import StartServer
from tests.publisher import Publisher
from tests.restoring import connected, keep
from tests.versions import NEWEST

COUNT = 4000
#: More than a block of 8 MiB: only full blocks are compressed.
BLOCKFUL = 20_000


async def fill(server: Sandbox, count: int, **config: Any) -> None:
    async with Publisher(server.url) as publisher:
        await publisher.create("S", **config)
        await publisher.store_all((f"S.{at % 7}", b"words %d " % at * 60, b"") for at in range(count))


async def all_are_there(js: JetStream, manifest: Manifest, repo: Path, count: int) -> None:
    """Every message of the backup is the server's own."""
    assert manifest.method == "messages"
    assert "snapshot failed" in manifest.reason
    info = await js.stream_info("S")
    told = [one async for one in js.messages("S", 1, info["state"]["last_seq"], info["config"])]
    assert len(told) == count
    assert await rows_of(repo, manifest) == told


@pytest.mark.parametrize("version", ["2.14.6", NEWEST])
async def test_a_snapshot_that_cannot_be_decoded_is_replaced_by_the_messages(
    start_server: StartServer, tmp_path: Path, version: str
) -> None:
    server = await start_server(version)
    await fill(server, COUNT)
    async with connected(server) as js:
        snapshot = js.snapshot

        class Flipped:
            """The real snapshot; one bit of its first chunk is another."""

            def __init__(self, stream: str) -> None:
                self._inner = snapshot(stream)
                self._chunks = 0

            async def __aenter__(self) -> Flipped:
                await self._inner.__aenter__()
                self.config, self.state = self._inner.config, self._inner.state
                return self

            async def __aexit__(
                self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
            ) -> None:
                await self._inner.__aexit__(kind, error, trace)

            def __aiter__(self) -> Flipped:
                return self

            async def __anext__(self) -> bytes:
                self._chunks += 1
                chunk = bytearray(await anext(self._inner))
                if self._chunks == 1:
                    chunk[len(chunk) // 2] ^= 1
                return bytes(chunk)

        js.snapshot = Flipped  # type: ignore[method-assign, assignment]
        kept = await keep(js, tmp_path)
        await all_are_there(js, kept.manifests[0], tmp_path, COUNT)


async def test_what_2_10_cannot_send_but_still_read_is_backed_up_and_what_it_has_lost_is_told(
    start_server: StartServer, tmp_path: Path
) -> None:
    """A secure delete in a compressed block: 2.10 then reads the block from its cache only."""
    server = await start_server("2.10.26")
    await fill(server, BLOCKFUL, compression="s2")
    async with connected(server) as js:
        await js.request("STREAM.MSG.DELETE.S", {"seq": 10})
        kept = await keep(js, tmp_path / "first")
        await all_are_there(js, kept.manifests[0], tmp_path / "first", BLOCKFUL - 1)
    await server.restart()
    async with connected(server) as js:
        assert (await js.stream_info("S"))["state"]["messages"] == BLOCKFUL - 1, "as the server says"
        with pytest.raises(BadDataError, match=f"holds {BLOCKFUL - 1} messages and gave 0") as failed:
            await keep(js, tmp_path / "second")
        assert failed.value.code == "data.count"
