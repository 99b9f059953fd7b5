from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable
from typing import Any

import pytest

from jetkeep.config import ConnectionSettings
from jetkeep.errors import ApiError, ServerError
from jetkeep.jetstream import JetStream, connect
from jetkeep.jetstream import restore as module
from jetkeep.jetstream.restore import RestoreSender
from jetkeep.model import JsonDict
from jetkeep.sandbox import Sandbox
from tests.conftest import StartServer
from tests.publisher import Publisher, header_block

MIB = 1024 * 1024


def reach(server: Sandbox, **more: Any) -> contextlib.AbstractAsyncContextManager[JetStream]:
    return connect(ConnectionSettings(servers=(server.url,), timeout_s=3.0, **more))


class Taken:
    """A snapshot of a stream of about so many MiB; the stream itself is deleted."""

    config: JsonDict
    state: JsonDict
    content: bytes


async def take(js: JetStream, server: Sandbox, megabytes: int = 2, user: str = "", password: str = "") -> Taken:
    taken = Taken()
    async with Publisher(server.url, user, password) as publisher:
        await publisher.create("S")
        headers = header_block(("A", "1"), ("a", "2"))
        await publisher.store_all((f"S.{at}", os.urandom(MIB // 8), headers) for at in range(megabytes * 8))
        await publisher.delete("S", 3)
    async with js.snapshot("S") as snapshot:
        taken.content = b"".join([chunk async for chunk in snapshot])
    taken.config, taken.state = snapshot.config, snapshot.state
    await js.delete_stream("S")
    return taken


async def put(js: JetStream, taken: Taken, during: Callable[[RestoreSender], Any] | None = None) -> JsonDict:
    """Restore it; after the first half `during` happens."""
    half = len(taken.content) // 2
    async with js.restore("S", taken.config, taken.state) as sink:
        await sink.send(taken.content[:half])
        if during is not None:
            await during(sink)
        await sink.send(memoryview(taken.content)[half:])
        return await sink.finish()


async def test_what_was_taken_comes_back(any_server: Sandbox) -> None:
    async with reach(any_server) as js:
        taken = await take(js, any_server)
        before = taken.state
        info = await put(js, taken)
        assert info["config"]["subjects"] == ["S.>"]
        after = (await js.stream_info("S"))["state"]
        for key in ("messages", "bytes", "first_seq", "first_ts", "last_seq", "last_ts", "num_deleted"):
            assert after[key] == before[key], key


async def test_any_chunk_size_is_taken(server: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK_BYTES", 1000)
    async with reach(server) as js:
        taken = await take(js, server)
        assert (await put(js, taken))["state"]["messages"] == taken.state["messages"]


async def test_chunks_fit_a_small_max_payload(start_server: StartServer) -> None:
    server = await start_server()
    async with reach(server) as js:
        taken = await take(js, server)
    small = await start_server(config={"max_payload": 200_000})
    async with reach(small) as js:
        assert js.max_payload == 200_000
        assert (await put(js, taken))["state"]["messages"] == taken.state["messages"]


async def test_an_existing_stream_is_refused_before_anything_is_sent(any_server: Sandbox) -> None:
    async with reach(any_server) as js:
        taken = await take(js, any_server)
        await js.create_stream({"name": "S", "subjects": ["S.>"], "storage": "file"})
        sink = js.restore("S", taken.config, taken.state)
        with pytest.raises(ApiError) as caught:
            await sink.__aenter__()
        assert caught.value.err_code == 10130
        assert not sink.accepted


async def test_bytes_that_are_no_snapshot_are_refused_in_the_servers_words(any_server: Sandbox) -> None:
    async with reach(any_server) as js:
        taken = await take(js, any_server)
        taken.content = os.urandom(len(taken.content))
        sink = js.restore("S", taken.config, taken.state)

        async def send_all() -> None:
            async with sink:
                await sink.send(taken.content)
                await sink.finish()

        with pytest.raises(ServerError) as caught:
            await send_all()
        assert sink.accepted
        assert "S" in caught.value.what
        await js.delete_stream("S")
        assert (await js.stream_list()).total == 0


async def test_a_cut_snapshot_is_refused(any_server: Sandbox) -> None:
    async with reach(any_server) as js:
        taken = await take(js, any_server)
        taken.content = taken.content[: len(taken.content) // 2]
        with pytest.raises(ApiError, match="could not restore S"):
            await put(js, taken)


async def test_a_feeder_that_stops_is_told_that_the_restore_was_dropped(server: Sandbox) -> None:
    async with reach(server) as js:
        taken = await take(js, server)
        with pytest.raises(ServerError, match="does not listen any more") as caught:
            await put(js, taken, lambda _: asyncio.sleep(7))
        assert caught.value.code == "nats.restore-dropped"


async def test_a_feeder_that_stops_before_the_end_is_told_too(server: Sandbox) -> None:
    async with reach(server) as js:
        taken = await take(js, server)
        async with js.restore("S", taken.config, taken.state) as sink:
            await sink.send(taken.content)
            await asyncio.sleep(7)
            with pytest.raises(ServerError) as caught:
                await sink.finish()
        assert caught.value.code == "nats.restore-dropped"


async def test_a_server_killed_in_the_middle(any_server: Sandbox) -> None:
    async def kill(_: RestoreSender) -> None:
        any_server.kill()

    async with reach(any_server) as js:
        taken = await take(js, any_server, 24)
        began = time.monotonic()
        with pytest.raises(ServerError, match="connection") as caught:
            await put(js, taken, kill)
        assert caught.value.code == "nats.disconnected"
        assert time.monotonic() - began < 5


async def test_a_frozen_server_is_noticed(server: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ACK_S", 2.0)

    async def freeze(_: RestoreSender) -> None:
        server.pause()

    async with reach(server) as js:
        taken = await take(js, server, 24)
        began = time.monotonic()
        with pytest.raises(ServerError, match="no acknowledgement"):
            await put(js, taken, freeze)
        assert time.monotonic() - began < 6
        server.resume()


async def test_a_server_that_freezes_after_the_last_chunk_is_noticed(
    server: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FINISH_S", 1.0)
    async with reach(server) as js:
        taken = await take(js, server)
        async with js.restore("S", taken.config, taken.state) as sink:
            await sink.send(taken.content)
            await asyncio.sleep(0.5)
            server.pause()
            with pytest.raises(ServerError, match="no answer"):
                await sink.finish()
        server.resume()


async def test_memory_is_bounded_by_the_chunks_in_flight(server: Sandbox) -> None:
    async with reach(server) as js:
        taken = await take(js, server, 24)
        most = 0

        async def watch() -> None:
            nonlocal most
            while True:
                most = max(most, js.client.pending_data_size)
                await asyncio.sleep(0)

        watching = asyncio.ensure_future(watch())
        await put(js, taken)
        watching.cancel()
        assert most <= (module.CHUNKS_IN_FLIGHT + 1) * module.CHUNK_BYTES


@pytest.mark.parametrize("subject", ["$JS.API.STREAM.RESTORE.*", "$JS.SNAPSHOT.RESTORE.>"])
async def test_a_subject_that_is_not_permitted_is_named(start_server: StartServer, subject: str) -> None:
    denied = {"publish": {"deny": [subject]}}
    users = [{"user": "ann", "password": "pw", "permissions": denied}, {"user": "bob", "password": "pw"}]
    server = await start_server(config={"authorization": {"users": users}})
    async with reach(server, user="bob", password="pw") as js:
        taken = await take(js, server, user="bob", password="pw")
    began = time.monotonic()
    async with reach(server, user="ann", password="pw") as js:
        with pytest.raises(ServerError) as caught:
            await put(js, taken)
    assert caught.value.code == "nats.permission"
    assert subject.rstrip("*>") in caught.value.what
    assert time.monotonic() - began < 3
