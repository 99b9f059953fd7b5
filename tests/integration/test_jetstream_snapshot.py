from __future__ import annotations

import asyncio
import contextlib
import inspect
import os
import time
from collections.abc import Callable
from typing import Any

import pytest

from jetkeep.config import ConnectionSettings
from jetkeep.errors import ApiError, ServerError
from jetkeep.jetstream import JetStream, connect
from jetkeep.jetstream import snapshot as module
from jetkeep.jetstream.snapshot import SnapshotReceiver
from jetkeep.sandbox import Sandbox, SandboxCluster
from tests.conftest import StartServer
from tests.publisher import Publisher
from tests.versions import VERSIONS, ends_first

MIB = 1024 * 1024


def reach(server: Sandbox, **more: Any) -> contextlib.AbstractAsyncContextManager[JetStream]:
    return connect(ConnectionSettings(servers=(server.url,), timeout_s=3.0, **more))


async def fill(server: Sandbox, megabytes: int, name: str = "S", user: str = "", password: str = "") -> None:
    """A stream of so many MiB that cannot be compressed."""
    async with Publisher(server.url, user, password) as publisher:
        await publisher.create(name)
        await publisher.store_all((f"{name}.{at}", os.urandom(MIB // 8), b"") for at in range(megabytes * 8))


async def receive(
    js: JetStream, during: Callable[[], Any] | None = None, window: int = MIB, name: str = "S"
) -> tuple[SnapshotReceiver, int]:
    """Receive a snapshot; after the first chunk `during` happens. Returns it and its number of bytes."""
    async with js.snapshot(name, window_bytes=window) as snapshot:
        size = len(await anext(snapshot))
        if during is not None:
            happened = during()
            if inspect.isawaitable(happened):
                await happened
        async for chunk in snapshot:
            size += len(chunk)
    return snapshot, size


@pytest.mark.parametrize("size", ["empty", "small", "many chunks"])
async def test_a_snapshot_has_config_state_and_all_bytes(any_server: Sandbox, size: str) -> None:
    count = {"empty": 0, "small": 3, "many chunks": 50}[size]
    async with Publisher(any_server.url) as publisher:
        await publisher.create("S", max_msgs=1000, description="of mine")
        await publisher.store_all(("S.a", os.urandom(100_000), b"") for _ in range(count))
    async with reach(any_server) as js, js.snapshot("S") as snapshot:
        chunks = [chunk async for chunk in snapshot]
    assert snapshot.config["description"] == "of mine"
    assert snapshot.state["messages"] == count
    assert sum(map(len, chunks)) >= count * 100_000
    assert all(len(chunk) <= module.CHUNK_BYTES for chunk in chunks)
    if any_server.version >= "2.12":  # older ones send what a read gives
        assert all(len(chunk) == module.CHUNK_BYTES for chunk in chunks[:-1])
    assert chunks[0][:10] in (b"\xff\x06\x00\x00S2sTwO", b"\xff\x06\x00\x00sNaPpY")


async def test_a_snapshot_leaves_nothing_at_the_source(any_server: Sandbox) -> None:
    await fill(any_server, 1)
    async with Publisher(any_server.url) as publisher:
        before = await publisher.info("S")
    async with reach(any_server) as js:
        async with js.snapshot("S") as snapshot:
            _ = [chunk async for chunk in snapshot]
        assert await js.consumers("S") == []
    async with Publisher(any_server.url) as publisher:
        after = await publisher.info("S")
    assert {**before, "ts": 0} == {**after, "ts": 0}


@pytest.mark.parametrize("version", ends_first(["2.10.26", "2.12.8", "2.15.1"]))
async def test_a_slow_reader_does_not_lose_the_snapshot(
    start_server: StartServer, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server gives up after 2 s (2.10, 2.11) or 5 s without room; the reader stands still for longer."""
    monkeypatch.setattr(module, "BUFFER_BYTES", 2 * MIB)
    server = await start_server(version)
    await fill(server, 24)
    async with reach(server) as js, js.snapshot("S") as snapshot:
        size = len(await anext(snapshot))
        await asyncio.sleep(7)
        async for chunk in snapshot:
            size += len(chunk)
    assert size >= 24 * MIB


async def test_what_a_slow_reader_keeps_waiting_is_bounded(server: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BUFFER_BYTES", 2 * MIB)
    await fill(server, 48)
    async with reach(server) as js, js.snapshot("S") as snapshot:
        await asyncio.sleep(1.5)
        window = 8 * MIB
        assert snapshot.buffered <= module.BUFFER_BYTES + window + 4 * module.CHUNK_BYTES


async def test_a_reader_that_never_comes_back_ends_in_the_servers_words(
    server: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BUFFER_BYTES", 1 * MIB)
    monkeypatch.setattr(module, "OVERRUN_BYTES", 2 * MIB)
    await fill(server, 24)
    async with reach(server) as js:
        with pytest.raises(ServerError, match="408") as caught:
            await receive(js, during=lambda: asyncio.sleep(7))
    assert caught.value.code == "nats.snapshot"


async def test_a_stream_that_is_not_there(any_server: Sandbox) -> None:
    async with reach(any_server) as js:
        with pytest.raises(ApiError) as caught:
            async with js.snapshot("NONE"):
                pass
    assert caught.value.err_code == 10059


@pytest.mark.parametrize("version", VERSIONS[:-1])
async def test_a_second_snapshot_at_once_is_an_error_up_to_2_14(start_server: StartServer, version: str) -> None:
    server = await start_server(version)
    await fill(server, 24)

    async def second() -> None:
        with pytest.raises(ServerError, match="snapshot in progress"):
            await receive(js)

    async with reach(server) as js:
        assert (await receive(js, during=second))[1] >= 24 * MIB


async def test_an_abandoned_snapshot_frees_the_stream(any_server: Sandbox) -> None:
    await fill(any_server, 16)
    async with reach(any_server) as js:
        async with js.snapshot("S") as snapshot:
            await anext(snapshot)
        deadline = time.monotonic() + 8
        while True:
            try:
                size = (await receive(js))[1]
                break
            except ServerError as busy:
                if "in progress" not in busy.what or time.monotonic() > deadline:
                    raise
                await asyncio.sleep(0.1)
    assert size >= 16 * MIB


async def test_a_server_killed_in_the_middle(any_server: Sandbox) -> None:
    await fill(any_server, 24)
    began = time.monotonic()
    async with reach(any_server) as js:
        with pytest.raises(ServerError) as caught:
            await receive(js, during=any_server.kill)
    assert caught.value.code == "nats.disconnected"
    assert time.monotonic() - began < 5


async def test_a_server_that_restarts_in_the_middle_is_usable_after(server: Sandbox) -> None:
    await fill(server, 24)
    async with reach(server) as js:
        with pytest.raises(ServerError, match="connection"):
            await receive(js, during=server.restart)
        deadline = time.monotonic() + 5
        while not js.client.is_connected:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)
        assert (await receive(js))[1] >= 24 * MIB


async def test_a_frozen_server_is_noticed(server: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "QUIET_S", 0.5)
    await fill(server, 24)
    async with reach(server) as js:
        with pytest.raises(ServerError) as caught:
            await receive(js, during=server.pause)
        assert caught.value.retryable
        server.resume()


async def test_the_leader_of_a_replicated_stream_dies_in_the_middle(
    cluster: SandboxCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "QUIET_S", 0.5)
    monkeypatch.setattr(module, "STALL_S", 5.0)
    async with Publisher(cluster.url) as publisher:
        await publisher.create("S", num_replicas=3)
        await publisher.store_all((f"S.{at}", os.urandom(MIB // 8), b"") for at in range(24 * 8))
        leader = int((await publisher.info("S"))["cluster"]["leader"].removeprefix("node-")) - 1
    # Connected elsewhere: the connection stays, and nothing tells that no more will come.
    async with reach(cluster.servers[leader - 1]) as js:
        with pytest.raises(ServerError) as caught:
            await receive(js, during=cluster.servers[leader].kill)
        assert caught.value.retryable
        await cluster.settle()
        deadline = time.monotonic() + 20
        while True:
            try:
                assert (await receive(js))[1] >= 24 * MIB
                break
            except ServerError:
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(0.5)


async def test_a_stream_deleted_in_the_middle_is_named(any_server: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "QUIET_S", 0.5)
    await fill(any_server, 24)
    async with reach(any_server) as js:
        with pytest.raises(ServerError, match=r"deleted|408|500"):
            await receive(js, during=lambda: js.delete_stream("S"))
        assert (await js.stream_list()).total == 0


async def test_acknowledgements_that_are_not_permitted_are_named(start_server: StartServer) -> None:
    denied = {"publish": {"deny": ["$JS.SNAPSHOT.ACK.>"]}}
    users = [{"user": "ann", "password": "pw", "permissions": denied}, {"user": "bob", "password": "pw"}]
    server = await start_server(config={"authorization": {"users": users}})
    await fill(server, 1, "SMALL", user="bob", password="pw")
    await fill(server, 24, "LARGE", user="bob", password="pw")
    began = time.monotonic()
    async with reach(server, user="ann", password="pw") as js:
        assert (await receive(js, name="SMALL", window=8 * MIB))[1] >= MIB
        with pytest.raises(ServerError, match=r"\$JS\.SNAPSHOT\.ACK\.LARGE\.>") as caught:
            await receive(js, name="LARGE")
    assert caught.value.code == "nats.permission"
    assert time.monotonic() - began < 3
