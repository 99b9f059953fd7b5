"""Consumers that keep their state in memory beside a stream on disk: servers before 2.15 leave them out of snapshots."""

from __future__ import annotations

from pathlib import Path

import nats
import pytest
from nats.js.api import KeyValueConfig

from jetkeep.jetstream import JetStream
from jetkeep.restore.fields import ARCHIVE, Version
from jetkeep.sandbox import Sandbox
from tests.conftest import StartServer
from tests.restoring import HOUR, connected, consumer, fetch, keep, publish, put_back


async def positions(js: JetStream, stream: str) -> dict[str, tuple[int, int, int]]:
    return {
        str(one["name"]): (one["delivered"]["stream_seq"], one["ack_floor"]["stream_seq"], one["num_ack_pending"])
        for one in await js.consumers(stream)
    }


async def ten(js: JetStream, **config: str) -> None:
    await js.create_stream({"name": "S", "subjects": ["s"], "storage": "file", **config})
    await consumer(js, "S", "c", mem_storage=True, ack_wait=HOUR)
    for _ in range(10):
        await publish(js, "s")


async def test_a_bucket_that_somebody_watches_is_backed_up(any_server: Sandbox, tmp_path: Path) -> None:
    client = await nats.connect(any_server.url)
    bucket = await client.jetstream().create_key_value(KeyValueConfig(bucket="b"))
    await bucket.put("k", b"v")
    await bucket.watchall()
    async with connected(any_server) as js:
        (before,) = await js.consumers("KV_b")
        assert before["config"]["mem_storage"]
        kept = await keep(js, tmp_path)
        await client.close()
        await js.delete_stream("KV_b")
        report = await put_back(js, kept)
        assert await positions(js, "KV_b") == {before["name"]: (1, before["ack_floor"]["stream_seq"], 0)}
        said = [one.what for one in report.streams[0].step.differences]
        assert f"consumer {before['name']}: mem_storage True dropped" in said


@pytest.mark.parametrize("retention", ["limits", "workqueue"])
async def test_it_goes_on_where_it_was_and_what_was_not_acknowledged_comes_again(
    any_server: Sandbox, tmp_path: Path, retention: str
) -> None:
    async with connected(any_server) as js:
        await ten(js, retention=retention)
        await fetch(js, "S", "c", 6, (0, 1, 2, 4))
        kept = await keep(js, tmp_path)
        await js.delete_stream("S")
        await put_back(js, kept)
        # The API tells how many are pending, not which; only what a work queue still holds, read by messages, tells it.
        if Version.of(any_server.version) >= ARCHIVE or kept.manifests[0].method == "messages":
            assert await positions(js, "S") == {"c": (6, 3, 2)}
        else:
            assert await positions(js, "S") == {"c": (3, 3, 0)}
            await fetch(js, "S", "c", 6 if retention == "workqueue" else 7)
        await any_server.restart()
    async with connected(any_server) as js:
        assert "c" in await positions(js, "S"), "it is on disk now"


async def test_one_that_is_created_while_the_stream_is_read_is_not_missed(
    start_server: StartServer, tmp_path: Path
) -> None:
    server = await start_server("2.14.6")
    async with connected(server) as js:
        await ten(js)
        snapshot = js.snapshot

        def later(stream: str, **options: int) -> object:
            class Later:
                async def __aenter__(self) -> object:
                    await consumer(js, "S", "late", mem_storage=True)
                    self.inner = snapshot(stream, **options)
                    return await self.inner.__aenter__()

                async def __aexit__(self, *error: object) -> None:
                    await self.inner.__aexit__(*error)  # type: ignore[arg-type]

            return Later()

        js.snapshot = later  # type: ignore[method-assign, assignment]
        kept = await keep(js, tmp_path)
        assert [one.name for one in kept.manifests[0].consumers] == ["c"]
